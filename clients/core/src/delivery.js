import { take } from "./badge.js";
import { DualcastError } from "./errors.js";
import { Seen } from "./seen.js";

/** Events the client makes; a publication of such a type is told as `publication` only. */
const OWN = new Set(["connection", "badge", "parity", "publication"]);
/** Channels whose state comes first (PROTO-43). */
const STATEFUL = /^(presence|task|batch):/;
/** How often history is asked again for what came late. */
const TRIES = 6;

/**
 * @typedef {object} Page
 * @property {() => string} user
 * @property {(channel: string) => boolean} wants false: another tab asked for this channel
 * @property {() => Promise<any>} count asks for the counters of the inbox
 * @property {(channel: string) => void} subscribe once more, for the state of the channel
 * @property {(frame: import("./engine.js").Frame) => void} tell other tabs
 * @property {(name: string, value: number, labels?: Record<string, string>) => void} metric
 * @property {import("./emitter.js").Emitter} events
 * @property {import("./position.js").Position} position
 * @property {import("./timers.js").Timers} timers
 * @property {import("./rest.js").Rest} rest
 * @property {"late" | "all" | "none"} fills
 */

/** What came in, to the application: each publication once, the badge, gaps. */
export class Delivery {
  /** @type {import("./badge.js").Badge | null} */
  badge = null;
  #seen = new Seen();
  #page;
  /** Whose badge it is. */
  #user = "";
  /** Another one after each `end()`. */
  #life = {};

  /** @param {Page} page */
  constructor(page) {
    this.#page = page;
  }

  /** Whether it was delivered. @param {string} id */
  knows(id) {
    return this.#seen.has(id);
  }

  /** @param {import("./engine.js").Frame} frame */
  take(frame) {
    const { type } = frame;
    if (type === "publication") {
      if (this.#seen.add(frame.id)) this.#publish(/** @type {any} */ (frame));
      else this.#page.metric("duplicates", 1);
    } else if (type !== "position" && type !== "pong") {
      const more = type === "gap" ? { backfill: () => this.#fill(/** @type {any} */ (frame)) } : {};
      this.#page.events.emit(type, { ...frame, ...more });
    }
    // After the listeners: what they have not seen is not behind us.
    this.#page.position.take(frame.cursor);
  }

  /**
   * A `gap` or a `state` of the own connection: what has to be read again is.
   * @param {import("./engine.js").Frame} frame
   */
  follow(frame) {
    const { type, channel, reason, status } = frame;
    if (type === "gap") {
      this.#page.metric("gaps", 1, { reason });
      const { fills } = this.#page;
      if (fills === "all" || fills === reason) this.#refill(frame);
      if (this.#own(channel)) this.#page.timers.soon("count", this.#ask);
    }
    if (STATEFUL.test(channel) && (type === "gap" || status === "away")) {
      this.#page.timers.soon(`state:${channel}`, () => this.#page.subscribe(channel));
    }
  }

  /** The counters, as a publication or a reply has them. @param {any} news */
  count(news) {
    const [badge, ask] = take(this.badge, news);
    if (badge !== this.badge) this.#page.events.emit("badge", (this.badge = badge));
    if (ask) this.#page.timers.soon("count", this.#ask);
  }

  /** Asks for the counters, if anybody wants to know and nobody has asked; and for what a page before this one did not get. */
  begin() {
    for (const gap of this.#page.position.owed()) this.#refill(gap);
    const user = this.#page.user();
    if (user !== this.#user) this.badge = null;
    this.#user = user;
    if (!this.badge) this.#page.timers.set("count", 0, this.#ask);
  }

  /** The client has disconnected: what is being read is for nobody. */
  end() {
    this.#life = {};
    this.#page.position.gaps = {};
  }

  #ask = (tries = 0) => {
    if (!this.#page.events.has("badge")) return;
    this.#page.count().catch(({ retryable }) => {
      if (retryable) this.#page.timers.soon("count", () => this.#ask(tries + 1), tries);
    });
  };

  /** @param {import("./api.js").Publication} publication */
  #publish(publication) {
    const { channel, event } = publication;
    if (!this.#own(channel) && !this.#page.wants(channel)) return;
    this.#page.metric("publications", 1);
    if (this.#own(channel)) this.count(event === "inbox" ? publication.data : publication.inbox);
    this.#page.events.emit("publication", publication);
    if (!OWN.has(event)) this.#page.events.emit(event, publication);
  }

  /** Nobody else reads it: so again, if that may help; else the application is told. @param {any} gap @param {number} [tries] */
  async #refill(gap, tries = 0) {
    const life = this.#life;
    const { position, timers, metric } = this.#page;
    const url = gap.history_url;
    position.owe(url, gap);
    /** @type {any} */
    let failed;
    await this.#fill(gap).catch((error) => (failed = error));
    if (life !== this.#life) return;
    if (failed?.retryable && tries < TRIES) return timers.soon(`fill:${url}`, () => this.#refill(gap, tries + 1), tries);
    position.owe(url);
    if (!failed) return;
    metric("unfilled", 1, { reason: failed.code });
    this.#pass({ ...gap, filled: false });
  }

  /** How to is read when it is needed, which it is on few pages. @param {any} gap @returns {Promise<number>} */
  async #fill(gap) {
    const life = this.#life;
    const { backfill } = await import("./history.js").catch(({ message }) => {
      throw new DualcastError("unreachable", message, 0, true);
    });
    const count = await backfill(this.#page.rest, gap, (publication) => {
      if (life !== this.#life) throw new DualcastError("disconnected");
      this.#pass(publication);
    });
    if (count === null) throw new DualcastError("too-long");
    return count;
  }

  /** To other tabs, and here. @param {import("./engine.js").Frame} frame */
  #pass(frame) {
    this.#page.tell(frame);
    this.take(frame);
  }

  /** @param {string} channel */
  #own(channel) {
    return channel === "all" || channel === `user:${this.#page.user()}`;
  }
}
