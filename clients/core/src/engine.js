import { SIGNALS, CLOSE } from "./codes.js";
import { parsed } from "./json.js";
import { FRAMES, reduce } from "./reducer.js";
import { initial, isOpen, isUp } from "./states.js";
import { Timers } from "./timers.js";

/** @typedef {import("./states.js").Name} Name */
/** @typedef {import("./states.js").State} State */
/** @typedef {import("./transports/port.js").Request} Request */
/** @typedef {import("./transports/port.js").Connection} Connection */
/** @typedef {import("./sse_parser.js").StreamEvent} StreamEvent */
/** @typedef {{type: string, [field: string]: any}} Frame */
/**
 * A union's members without some fields.
 * @template T @template {PropertyKey} K @typedef {T extends unknown ? Omit<T, K> : never} Without
 */

/**
 * What the engine asks of its owner.
 * @typedef {object} Owner
 * @property {(link: Name, fresh: boolean, fallbackReason: string) => Promise<Request>} request
 * @property {(frame: Frame, link: Name, text: string) => void} frame of the protocol, in order; with the JSON text as it came
 * @property {(event: StreamEvent) => void} [raw] takes events of a stream that is not of this protocol
 * @property {import("./token.js").Token} token
 * @property {(state: State, before: State) => void} changed
 * @property {(reason: string | null, ms: number) => void} remember
 * @property {(name: string, value: number, labels?: Record<string, string>) => void} metric
 */
/**
 * @typedef {object} Clock
 * @property {() => number} now ms, never going back
 * @property {(run: () => void, ms: number) => any} set
 * @property {(timer: any) => void} clear
 * @property {() => number} random
 */
/** @type {Clock} */
export const CLOCK = {
  now: () => performance.now(),
  set: (run, ms) => setTimeout(run, Math.min(ms, 0x7fffffff)),
  clear: (timer) => clearTimeout(timer),
  random: () => Math.random(),
};

/** Runs the effects of the state machine: connections, timers, frames. */
export class Engine {
  #owner;
  #drivers;
  #clock;
  #timers;
  /** @type {Record<Name, Connection | null>} */
  #connections = { ws: null, sse: null };
  /** @type {Record<Name, number>} */
  #heard = { ws: 0, sse: 0 };
  /** @type {Record<Name, string>} last id of a stream, to tell which event moved it */
  #ids = { ws: "", sse: "" };
  /** @type {import("./states.js").Event[]} */
  #queue = [];
  #busy = false;

  /**
   * @param {Owner} owner
   * @param {{ws?: import("./transports/port.js").Driver, sse?: import("./transports/port.js").Driver}} drivers
   * @param {Partial<State>} [given] @param {Clock} [clock]
   */
  constructor(owner, drivers, given = {}, clock = CLOCK) {
    this.state = initial({ has: { ws: !!drivers.ws, sse: !!drivers.sse }, ...given });
    this.#owner = owner;
    this.#drivers = drivers;
    this.#clock = clock;
    this.#timers = new Timers(clock);
  }

  /** @param {Without<import("./states.js").Event, "now" | "random">} event */
  dispatch(event) {
    this.#queue.push(/** @type {any} */ ({ ...event, now: this.#clock.now(), random: this.#clock.random() }));
    if (this.#busy) return; // effects may cause events: one after the other
    this.#busy = true;
    try {
      for (let next = this.#queue.shift(); next; next = this.#queue.shift()) this.#step(next);
    } finally {
      this.#busy = false;
    }
  }

  /** Sends a frame over a live socket. @param {object} frame @returns {boolean} false: there is none */
  send(frame) {
    if (!isUp(this.state.ws) || !this.#connections.ws?.send) return false;
    try {
      this.#connections.ws.send(JSON.stringify(frame));
      return true;
    } catch {
      return false; // it is closing
    }
  }

  /** One more event name for drivers that have to know them. @param {string} name */
  listen(name) {
    this.#connections.sse?.listen?.(name);
  }

  /** @param {import("./states.js").Event} event */
  #step(event) {
    const before = this.state;
    const [state, effects] = reduce(before, event);
    this.state = state;
    for (const effect of effects) this.#run(effect);
    this.#owner.changed(state, before);
  }
  /** When the last connection was begun. */
  #opened = 0;

  /** @param {import("./states.js").Effect} effect */
  #run(effect) {
    switch (effect.type) {
      case "open":
        this.#opened = this.#clock.now();
        void this.#open(effect);
        break;
      case "close":
        this.#connections[effect.link]?.close();
        this.#connections[effect.link] = null;
        break;
      case "timer":
        this.#timers.set(effect.name, effect.ms, this.#rang(effect.name, this.#clock.now() + effect.ms));
        break;
      case "cancel":
        this.#timers.clear(effect.name);
        break;
      case "ping":
        this.send({ type: "ping" });
        break;
      case "refresh":
        void this.#refresh(effect.link, effect.gen);
        break;
      case "remember":
        this.#owner.remember(effect.reason, effect.ms);
        break;
      case "fallback":
        this.#owner.metric("fallback", 1, { reason: effect.reason });
    }
  }

  /** @param {Name} link @param {number} gen */
  async #refresh(link, gen) {
    const { token } = this.#owner;
    const old = token.value;
    const value = await token.get(true).catch(() => "");
    if (!value || value === old) return; // it expires: the server will say so
    if (link === "sse") this.dispatch({ type: "refreshed", link, gen });
    else this.send({ type: "authenticate", token: value });
  }

  /** @param {Name} name @param {number} due @returns {() => void} */
  #rang(name, due) {
    return () => {
      const now = this.#clock.now();
      const silentMs = this.#connections[name]?.deaf ? 0 : now - this.#heard[name];
      this.dispatch({ type: "timer", name, silentMs, lateMs: now - due });
    };
  }

  /** @param {import("./states.js").Effect & {type: "open"}} effect */
  async #open({ link, gen, fresh, fallbackReason }) {
    const current = () => this.state[link].gen === gen && isOpen(this.state[link]);
    /** @param {import("./transports/port.js").Ended} end */
    const closed = (end) => {
      if (!current()) return;
      this.#connections[link] = null;
      this.#owner.metric("closed", 1, { transport: link, code: String(end.code), reason: end.reason });
      // Channels are named as a socket's `bye` names them.
      if (end.channels && !this.state.strict) this.#frame(link, gen, { type: "bye", ...end }, "");
      else this.dispatch({ type: "closed", link, gen, ...end });
    };
    try {
      const request = await this.#owner.request(link, fresh, fallbackReason);
      if (!current()) return;
      this.dispatch({ type: "opening", link, gen });
      const driver = /** @type {import("./transports/port.js").Driver} */ (this.#drivers[link]);
      this.#ids[link] = request.lastEventId ?? "";
      const connection = driver(request, {
        opened: () => current() && this.dispatch({ type: "opened", link, gen }),
        text: (text) => current() && this.#text(link, gen, text),
        event: (event) => current() && this.#event(link, gen, event),
        position: (id) => current() && this.#owner.frame({ type: "position", cursor: id }, link, ""),
        retry: (ms) => current() && this.dispatch({ type: "retry", link, gen, ms }),
        heard: () => current() && (this.#heard[link] = this.#clock.now()),
        closed,
      });
      if (current()) this.#connections[link] = connection;
      else connection.close();
    } catch (error) {
      const found = /** @type {any} */ (error);
      const final = (found?.status === 401 || found?.status === 403) && found.code !== "token-expired";
      closed({ code: final ? CLOSE.UNAUTHORIZED : 1006, reason: String(found?.code ?? found?.message ?? "failed") });
    }
  }

  /** @param {Name} link @param {number} gen @param {string} text */
  #text(link, gen, text) {
    const frame = this.#object(text);
    if (typeof frame?.type === "string") this.#frame(link, gen, frame, text);
  }

  /** @param {string} text @returns {any} nothing: it is no object */
  #object(text) {
    const found = parsed(text);
    if (found && typeof found === "object") return found;
    this.#owner.metric("bad_frame", 1);
  }

  /** @param {Name} link @param {number} gen @param {StreamEvent} event */
  #event(link, gen, event) {
    if (this.#owner.raw) return this.#owner.raw(event);
    const moved = event.id !== this.#ids[link];
    this.#ids[link] = event.id;
    const data = this.#object(event.data);
    if (!data) return;
    const cursor = (moved && event.id) || data.cursor;
    const type = SIGNALS.includes(event.type) ? event.type : "publication";
    this.#frame(link, gen, { ...data, type, ...(cursor ? { cursor } : {}) }, event.data);
  }

  /** @param {Name} link @param {number} gen @param {Frame} frame @param {string} text */
  #frame(link, gen, frame, text) {
    // The owner first: what a frame says is known when the machine acts on it.
    this.#owner.frame(frame, link, text);
    if (frame.type === "welcome") {
      this.#owner.metric("connected", this.#clock.now() - this.#opened, { transport: link });
    }
    if (Object.hasOwn(FRAMES, frame.type)) this.dispatch({ type: "frame", link, gen, frame });
  }
}
