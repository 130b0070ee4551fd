import { FIRST_MS, backoff } from "../backoff.js";
import { CLOSE } from "../codes.js";
import { DualcastError } from "../errors.js";
import { isPassing } from "./passing.js";
import { change, state, unknown } from "./presence.js";

/** @typedef {import("../client.js").DualcastClient} DualcastClient */
/** @typedef {import("../api.js").Publication} Publication `recovered`: it is older than what came before it */
/**
 * What a component hears of a channel.
 * @typedef {object} Listener
 * @property {(publication: Publication) => void} [publication]
 * @property {(gap: Gap) => void} [gap]
 * @property {() => void} [changed] what `peek` tells
 */
/**
 * A hole (PROTO-26).
 * @typedef {object} Gap
 * @property {string} channel @property {string} reason
 * @property {string} [after] @property {string} [oldest] cursors
 * @property {string} history_url @property {boolean} [filled] false: it could not be filled
 * @property {() => Promise<number>} backfill delivers what history has, and says how many
 */
/**
 * @typedef {object} Channel
 * @property {"waiting" | "asked" | "subscribed" | "refused"} status
 * @property {(Error & {code: string}) | null} error why it is refused
 * @property {{data: any, status?: string} | null} state of a task or batch (PROTO-43): the newest
 * @property {import("./presence.js").Known | null} presence of a presence channel
 */
/**
 * `alone`: it may be what was refused; `foreign`: the application itself has subscribed to it, and keeps it.
 * @typedef {Channel & {listeners: Set<Listener>, alone: boolean, foreign: boolean}} Entry
 */

/** Longest wait before it is asked again over a connection that stays. */
const MOST_MS = 10_000;

/** @param {string} channel */
const kind = (channel) => channel.slice(0, channel.indexOf(":"));

/**
 * Subscriptions that components share: the first one of a channel subscribes, the last one's end unsubscribes.
 * Each is asked for on a live connection, so that a channel that is refused is an error of its own and not the end of
 * the connection.
 */
export class Channels {
  #client;
  /** Channels of the client's own options: they stay. @type {Set<string>} */
  #given;
  /** @type {Map<string, Entry>} */
  #entries = new Map();
  /** To be unsubscribed from. @type {Set<string>} */
  #left = new Set();
  /** A command is on its way, or about to be. */
  #asking = false;
  /** Asks again what passed by, over a connection that stayed. @type {any} */
  #timer = 0;
  #tries = 0;
  #watchers = 0;
  /** @type {(() => void)[]} */
  #offs = [];

  /** @param {DualcastClient} client */
  constructor(client) {
    this.#client = client;
    this.#given = new Set(client.options.channels);
  }

  /** What is known of a channel; null: nobody uses it. @param {string} channel @returns {Channel | null} */
  peek(channel) {
    return this.#entries.get(channel) ?? null;
  }

  /** How many channels there are. */
  get size() {
    return this.#entries.size;
  }

  /**
   * Listens to a channel, and subscribes to it if nobody has.
   * @param {string} channel @param {Listener} listener @returns {() => void} ends it
   */
  use(channel, listener) {
    const off = this.watch();
    let entry = this.#entries.get(channel);
    if (!entry) {
      const foreign = this.#isForeign(channel);
      entry = this.#add(channel, foreign ? "subscribed" : "waiting", foreign);
      if (foreign) this.#catchUp(channel, entry);
    }
    const { listeners } = entry;
    listeners.add(listener);
    this.#flushSoon();
    let used = true;
    return () => {
      if (!used) return;
      used = false;
      listeners.delete(listener);
      // A component that is mounted in the same go takes over.
      queueMicrotask(() => {
        off();
        if (!listeners.size && this.#entries.get(channel)?.listeners === listeners) this.#release(channel);
      });
    };
  }

  /**
   * Listens to the client, so that the states of its own channels, which come once, are known to whoever uses them
   * later. @returns {() => void} ends it
   */
  watch() {
    if (!this.#watchers++) {
      // What nobody heard of meanwhile may be true no more.
      for (const [name, { listeners }] of this.#entries) if (!listeners.size) this.#entries.delete(name);
      const { on } = this.#client;
      for (const [type, listener] of Object.entries({
        publication: this.#publication,
        state: this.#state,
        gap: this.#gap,
        unsubscribed: this.#unsubscribed,
        connection: this.#connection,
      })) {
        this.#offs.push(on.call(this.#client, type, listener));
      }
    }
    let on = true;
    return () => {
      if (!on) return;
      on = false;
      if (--this.#watchers) return;
      for (const off of this.#offs.splice(0)) off();
      clearTimeout(this.#timer);
    };
  }

  /** Whether the application has it. With `share` the client's channels are also those of other tabs. @param {string} channel */
  #isForeign(channel) {
    const { options, channels } = this.#client;
    if (this.#given.has(channel)) return channels?.includes(channel) ?? true; // it may have been refused
    return !options.share && !this.#left.has(channel) && !!channels?.includes(channel);
  }

  /** @param {string} channel @param {Channel["status"]} status @param {boolean} foreign @returns {Entry} */
  #add(channel, status, foreign) {
    const presence = kind(channel) === "presence" ? unknown() : null;
    /** @type {Entry} */
    const entry = { status, error: null, state: null, presence, listeners: new Set(), alone: false, foreign };
    this.#entries.set(channel, entry);
    return entry;
  }

  /** The state of a channel that the connection had before anybody listened. @param {string} channel @param {Entry} entry */
  #catchUp(channel, entry) {
    if (!entry.presence || entry.presence.state >= 0 || !this.#live) return;
    this.#client.request("presence", { channel }).then(
      (reply) => this.#state({ channel, data: reply.data }),
      () => {}, // the next state is right
    );
  }

  /** @param {string} channel */
  #release(channel) {
    const entry = this.#entries.get(channel);
    if (this.#given.has(channel)) {
      if (!STATEFUL.has(kind(channel))) this.#entries.delete(channel);
      return;
    }
    this.#entries.delete(channel);
    if (entry?.foreign) return;
    if (entry?.status !== "asked" && entry?.status !== "subscribed") return;
    if (!this.#left.size) queueMicrotask(() => this.#leave());
    this.#left.add(channel);
  }

  /** One command for all that are left in one go: a page of a hundred must not fill the outbox. */
  #leave() {
    const left = [...this.#left];
    if (!left.length) return;
    this.#left.clear();
    this.#client.unsubscribe(...left).catch(() => {});
    // There is room for as many of those that were too many.
    const more = [...this.#entries.values()].filter(({ error }) => error?.code === "too-many-channels");
    for (const entry of more.slice(0, left.length)) this.#change(entry, { status: "waiting", error: null });
    if (more.length) this.#flushSoon();
  }

  get #live() {
    return this.#client.status.status === "live";
  }

  /** One command for all that are asked for in one go; those that were refused together one by one. */
  #flushSoon() {
    if (this.#asking) return;
    this.#asking = true;
    queueMicrotask(() => {
      this.#leave(); // first, or the client takes one that comes back for one it has
      const waiting = [...this.#entries].filter(([, { status }]) => status === "waiting");
      const fresh = waiting.filter(([, { alone }]) => !alone);
      const asked = fresh.length ? fresh : waiting.slice(0, 1);
      if (asked.length && this.#live) void this.#ask(asked);
      else this.#asking = false;
    });
  }

  /** @param {[string, Entry][]} asked */
  async #ask(asked) {
    clearTimeout(this.#timer);
    for (const [, entry] of asked) this.#change(entry, { status: "asked" });
    /** @type {any} */
    let error = null;
    await this.#client.subscribe(...asked.map(([name]) => name)).catch((found) => (error = found));
    const passing = error && (isPassing(error) || !this.#live);
    for (const [name, entry] of asked) {
      if (this.#entries.get(name) !== entry || entry.status !== "asked") continue;
      if (!error) {
        this.#change(entry, { status: "subscribed" });
        // Another tab may have had it: then no state comes.
        if (this.#client.options.share) this.#catchUp(name, entry);
      } else if (!passing && asked.length === 1) this.#change(entry, { status: "refused", error });
      else {
        // All or nothing (PROTO-22): each by itself, so that one refusal harms no other.
        entry.alone ||= !passing;
        this.#change(entry, { status: "waiting" });
      }
    }
    this.#asking = false;
    this.#tries = passing ? this.#tries + 1 : 0;
    if (!passing) this.#flushSoon();
    else if (this.#live && this.#watchers) {
      this.#timer = setTimeout(() => this.#flushSoon(), backoff(this.#tries, Math.random(), FIRST_MS, MOST_MS));
    }
  }

  /** @param {Entry} entry @param {Partial<Channel>} news */
  #change(entry, news) {
    Object.assign(entry, news);
    this.#each(entry, (listener) => listener.changed?.());
  }

  /** @param {Entry | undefined} entry @param {(listener: Listener) => void} tell */
  #each(entry, tell) {
    for (const listener of [...(entry?.listeners ?? [])]) {
      try {
        tell(listener);
      } catch (error) {
        queueMicrotask(() => {
          throw error; // reported as uncaught, and harms no other listener
        });
      }
    }
  }

  #publication = (/** @type {Publication} */ publication) => {
    const { channel, event, data } = publication;
    const entry = this.#entries.get(channel);
    if (!entry) return;
    if (entry.presence && event === "presence") this.#change(entry, { presence: change(entry.presence, data) });
    else if ((event === "task" || event === "batch") && event === kind(channel)) {
      if (!(entry.state?.data?.revision >= data.revision)) this.#change(entry, { state: { data } });
    }
    this.#each(entry, (listener) => listener.publication?.(publication));
  };

  /** @param {{channel: string, data: any, status?: string}} frame */
  #state = ({ channel, data, status }) => {
    const wanted = this.#given.has(channel) && STATEFUL.has(kind(channel));
    const entry = this.#entries.get(channel) ?? (wanted ? this.#add(channel, "subscribed", true) : null);
    if (!entry) return;
    if (entry.presence) this.#change(entry, { presence: state(entry.presence, { data, status }) });
    else if (!data || !(entry.state?.data?.revision > data.revision)) {
      // A state that could not be read says nothing about what was known.
      const known = status === "none" ? null : (entry.state?.data ?? null);
      this.#change(entry, { state: { data: data ?? known, status } });
    }
  };

  #gap = (/** @type {Gap} */ gap) => {
    this.#each(this.#entries.get(gap.channel), (listener) => listener.gap?.(gap));
  };

  /** The server took channels away. @param {{channels: string[], reason?: string}} frame */
  #unsubscribed = ({ channels, reason }) => {
    for (const channel of channels) {
      const entry = this.#entries.get(channel);
      const error = new DualcastError(reason === "forbidden-channel" ? reason : "unsubscribed", reason);
      if (entry) this.#change(entry, { status: "refused", error });
    }
  };

  /** @param {DualcastClient["status"]} status */
  #connection = ({ status, stopped, leader }) => {
    if (status === "live") return this.#flushSoon();
    if (status === "stopped" && stopped?.code === CLOSE.FORBIDDEN) return leader ? this.#forbidden() : undefined;
    if (status !== "off" && status !== "stopped") return;
    // Whoever comes next may have other rights.
    for (const entry of this.#entries.values()) {
      if (entry.status === "refused") this.#change(entry, { status: "waiting", error: null });
    }
  };

  /** One channel too many is the end of a connection: on without what it may have been, which is asked for again. */
  #forbidden() {
    const own = [...this.#entries].filter(([, { foreign }]) => !foreign);
    const asked = own.filter(([, { status }]) => status === "asked");
    const suspects = asked.length ? asked : own.filter(([, { status }]) => status === "subscribed");
    if (!suspects.length) return;
    for (const [name, entry] of suspects) {
      this.#client.unsubscribe(name).catch(() => {});
      entry.alone = true;
      if (asked.length !== 1) this.#change(entry, { status: "waiting" });
      else this.#change(entry, { status: "refused", error: new DualcastError("forbidden-channel") });
    }
    queueMicrotask(() => this.#client.status.status === "stopped" && this.#client.connect());
  }
}

/** Kinds of channels that begin with a state. */
const STATEFUL = new Set(["presence", "task", "batch"]);
