import { Store } from "./store.js";

/** @typedef {import("./channels.js").Publication} Publication */
/**
 * What one component shows of a channel.
 * @typedef {object} Feed
 * @property {"waiting" | "subscribed" | "refused"} status `waiting`: for the connection, or the answer
 * @property {readonly Publication[]} events newest last, at most `limit`
 * @property {Publication | null} last
 * @property {import("./channels.js").Gap | null} gap the newest hole: reload what is shown, or `gap.backfill()`; then
 *   `clear()`
 * @property {(Error & {code: string}) | null} error why there is no subscription
 * @property {{data: any, status?: string} | null} state of a task or batch: the newest
 */

/** @type {Feed} */
export const NOTHING = Object.freeze({
  status: "waiting",
  events: Object.freeze([]),
  last: null,
  gap: null,
  error: null,
  state: null,
});
/** Most events of one list. */
export const MOST = 1_000;

/** A channel as one component follows it: while somebody listens to `store`. */
export class ChannelFeed {
  /** Called with each event that passes the filter, once. @type {((publication: Publication) => void) | undefined} */
  onEvent;
  /** @type {((gap: import("./channels.js").Gap) => void) | undefined} */
  onGap;
  #hub;
  #channel;
  #types;
  #limit;
  #listening = false;

  /**
   * @param {{channels: import("./channels.js").Channels, client: import("./channels.js").DualcastClient}} hub
   * @param {string} channel
   * @param {{events?: readonly string[] | null, limit?: number}} [options] `events`: only these types; `limit`: of the list
   */
  constructor(hub, channel, { events, limit = 50 } = {}) {
    this.#hub = hub;
    this.#channel = channel;
    this.#types = events;
    this.#limit = Math.max(0, Math.min(limit, MOST));
    this.store = new Store(NOTHING, () => this.#start());
  }

  /** Forgets events and gap. */
  clear = () => this.store.patch({ events: NOTHING.events, last: null, gap: null });

  #start() {
    this.#listening = true;
    const { client, channels } = this.#hub;
    // A native EventSource hears types that somebody asked for.
    const offs = (this.#types ?? []).map((type) => client.on(type, () => {}));
    offs.push(channels.use(this.#channel, { publication: this.#publication, gap: this.#gap, changed: this.#changed }));
    this.#changed();
    return () => {
      for (const off of offs) off();
      this.#listening = false;
      // What comes until somebody listens again would be a hole that nothing tells of.
      queueMicrotask(() => this.#listening || this.store.set(NOTHING));
    };
  }

  /** @param {Publication} publication */
  #publication = (publication) => {
    if (this.#types && !this.#types.includes(publication.event)) return;
    const { events, last } = this.store.get();
    // What was recovered late stands where it belongs; times are texts of one form (PROTO-12).
    const isLater = (/** @type {Publication} */ { time }) => publication.recovered && publication.time < time;
    let at = events.length;
    while (at && isLater(events[at - 1])) at -= 1;
    const kept = this.#limit ? events.toSpliced(at, 0, publication).slice(-this.#limit) : events;
    this.store.patch({ last: last && isLater(last) ? last : publication, events: kept });
    this.onEvent?.(publication);
  };

  #gap = (/** @type {import("./channels.js").Gap} */ gap) => {
    // What the client fills by itself arrives as events; of any other there is something that history has not.
    if (gap.reason === "late" && gap.filled !== false && this.#hub.client.options.backfill !== "none") return;
    this.store.patch({ gap });
    this.onGap?.(gap);
  };

  #changed = () => {
    const found = this.#hub.channels.peek(this.#channel);
    if (!found) return;
    const { error, state } = found;
    const status = found.status === "asked" ? "waiting" : found.status;
    const now = this.store.get();
    if (now.status !== status || now.error !== error || now.state !== state) this.store.patch({ status, error, state });
  };
}
