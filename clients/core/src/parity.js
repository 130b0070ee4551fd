// What arrived over each transport in stage `shadow`, reported by stretches (POST /v1/parity).

/** @typedef {{ids: string[], latency_ms: (number | null)[]}} Side */
/** @typedef {{sse: Side, websocket: Side}} Report */

/** Kept of a stretch; beyond it the oldest are forgotten. */
const MOST = 2_000;
/** What the server takes: publications of one report, and a latency in ms. */
const AT_ONCE = 500;
const LATEST = 86_400_000;

/** Publications with a cursor by transport, in their order. */
export class Parity {
  /** @type {Record<"sse" | "ws", Map<string, number | null>>} */
  #sides = { sse: new Map(), ws: new Map() };
  /** id → first arrival on either side. @type {Map<string, number>} */
  #first = new Map();

  /**
   * @param {"sse" | "ws"} link @param {{id: string, time?: string}} publication
   * @param {number} now ms since the epoch
   */
  note(link, publication, now) {
    const sent = Date.parse(publication.time ?? "");
    this.#sides[link].set(publication.id, Number.isNaN(sent) ? null : Math.min(LATEST, Math.max(0, now - sent)));
    if (!this.#first.has(publication.id)) this.#first.set(publication.id, now);
    if (this.#first.size > MOST) this.#forget(/** @type {string} */ (this.#first.keys().next().value));
  }

  /**
   * Reports every `every` ms while `on`.
   * @param {boolean} on @param {import("./timers.js").Timers} timers @param {number} every 0: never @param {(report: Report) => void} tell
   */
  watch(on, timers, every, tell) {
    if (!on || !every) timers.clear("parity");
    else if (!timers.has("parity")) {
      timers.set("parity", every, () => {
        this.watch(on, timers, every, tell);
        const before = Date.now() - Math.min(10_000, every / 2);
        for (let report; (report = this.report(before)); ) tell(report);
      });
    }
  }

  /** Begins anew: one side was away, so that nothing can be said of the time. */
  clear() {
    for (const id of this.#first.keys()) this.#forget(id);
  }

  /**
   * The stretch up to `before` (what came later may still be under way on the other side), or as much as the server
   * takes of it, then forgotten.
   * @param {number} before @returns {Report | null} null: there is nothing
   */
  report(before) {
    const due = new Set([...this.#first].filter(([, at]) => at <= before).slice(0, AT_ONCE).map(([id]) => id));
    if (!due.size) return null;
    const [sse, websocket] = [this.#sides.sse, this.#sides.ws].map((side) => {
      const found = [...side].filter(([id]) => due.has(id));
      return { ids: found.map(([id]) => id), latency_ms: found.map(([, ms]) => ms) };
    });
    for (const id of due) this.#forget(id);
    return { sse, websocket };
  }

  /** @param {string} id */
  #forget(id) {
    for (const map of [this.#first, this.#sides.sse, this.#sides.ws]) map.delete(id);
  }
}
