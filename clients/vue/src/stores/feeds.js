import { CLOSE, DualcastError } from "@dualcast/client";
import { NOBODY, reducePresence } from "./presence_list.js";

/** @typedef {import("@dualcast/client").DualcastClient} DualcastClient */
/** @typedef {import("../types.js").Publication} Publication */
/**
 * How a channel stands.
 * @typedef {object} Feed
 * @property {"waiting" | "asked" | "subscribed" | "refused"} status `waiting`: for a connection
 * @property {Error | null} error why it was refused, a DualcastError
 * @property {any} state of a `task:` or `batch:` channel: the whole of it, of the highest revision (PROTO-43, 53)
 * @property {import("./presence_list.js").PresenceList} presence of a `presence:` channel
 */
/** A hole in what came (PROTO-26). @typedef {{channel: string, reason: string, after?: string, oldest?: string, backfill: () => Promise<number>}} Gap */
/** @typedef {{changed: () => void, publication?: (publication: Publication) => void, gap?: (gap: Gap) => void}} Holder */
/** @typedef {Feed & {holders: Set<Holder>, foreign: boolean, alone: boolean}} Entry `alone`: asked for by itself */

/** @type {Feed} */
export const NO_FEED = Object.freeze({ status: "waiting", error: null, state: null, presence: NOBODY });
/** States kept of channels nobody holds; the protocol allows so many channels. */
const MOST_IDLE = 128;
const STATEFUL = /^(presence|task|batch):/;
/** Refusals that say nothing about the channel: with the next connection it is asked for again. */
const PASSING = new Set("disconnected timeout unreachable outbox-full bus-unavailable rate-limited internal".split(" "));

/**
 * The channels of one client, counted: the first holder subscribes, the last one unsubscribes, all of them see
 * the same state. Channels that the application itself has subscribed to are left to it. A channel is asked for
 * over a live connection only, so that one which is forbidden is refused by itself and not the connection with it.
 */
export class Feeds {
  #client;
  #base;
  /** @type {Map<string, Entry>} */
  #entries = new Map();
  /** @type {(() => void)[]} */
  #offs = [];
  #users = 0;
  #asking = false;

  /** @param {DualcastClient} client */
  constructor(client) {
    this.#client = client;
    this.#base = new Set(client.options.channels);
  }

  /** Listens to the client until the last one lets go. @returns {() => void} lets go, once */
  retain() {
    if ((this.#users += 1) === 1) this.#listen();
    let held = true;
    return () => {
      if (!held) return;
      held = false;
      if ((this.#users -= 1)) return;
      for (const off of this.#offs.splice(0)) off();
      this.#entries.clear();
    };
  }

  /** @param {string} channel @returns {Feed} */
  get = (channel) => this.#entries.get(channel) ?? NO_FEED;

  /**
   * Wants a channel.
   * @param {string} channel @param {Holder} holder is told of changes, and given publications
   * @returns {() => void} wants it no more, once
   */
  hold(channel, holder) {
    const release = this.retain();
    const own = { ...holder };
    const entry = this.#entry(channel);
    entry.holders.add(own);
    if (entry.holders.size === 1) this.#want(channel);
    return () => {
      if (!this.#entries.get(channel)?.holders.delete(own)) return;
      // A component may make room for another that wants the same channel.
      queueMicrotask(() => {
        this.#leave(channel);
        release();
      });
    };
  }

  get #live() {
    return this.#client.status.status === "live";
  }

  /** @param {string} channel @returns {Entry} */
  #entry(channel) {
    let entry = this.#entries.get(channel);
    if (!entry) {
      entry = { ...NO_FEED, holders: new Set(), foreign: false, alone: false };
      this.#entries.set(channel, entry);
    }
    return entry;
  }

  /** @param {string} channel @param {Partial<Entry>} news */
  #set(channel, news) {
    const entry = this.#entries.get(channel);
    if (!entry) return;
    this.#entries.set(channel, { ...entry, ...news });
    for (const { changed } of [...entry.holders]) changed();
  }

  /** The first holder is there. @param {string} channel */
  #want(channel) {
    const { status } = this.get(channel);
    if (status === "asked" || status === "subscribed") return;
    const client = this.#client;
    // With `share` the client's channels are also those of other tabs.
    if (this.#base.has(channel) || (!client.options.share && client.channels.includes(channel))) {
      this.#set(channel, { status: "subscribed", foreign: true, error: null });
      return this.#stateOf(channel);
    }
    this.#set(channel, { status: "waiting", foreign: false, error: null });
    this.#flushSoon();
  }

  /** Nobody may want it any more. @param {string} channel */
  #leave(channel) {
    const entry = this.#entries.get(channel);
    if (!entry || entry.holders.size || entry.status === "asked") return;
    if (entry.foreign) return this.#set(channel, { status: "waiting" }); // with the state it has
    this.#entries.delete(channel);
    if (entry.status === "subscribed") this.#client.unsubscribe(channel).catch(() => {});
  }

  /** One command for all that are wanted at once; those that were refused together one by one. */
  #flushSoon() {
    if (this.#asking) return;
    this.#asking = true;
    const release = this.retain(); // what is begun is seen through, whoever has gone meanwhile
    queueMicrotask(async () => {
      let goes = true;
      while (goes && this.#live) {
        const waiting = [...this.#entries].filter(([, { status, holders, foreign }]) => status === "waiting" && holders.size && !foreign);
        const fresh = waiting.filter(([, { alone }]) => !alone);
        const asked = fresh.length ? fresh : waiting.slice(0, 1);
        goes = asked.length > 0 && (await this.#ask(asked.map(([channel]) => channel)));
      }
      this.#asking = false;
      release();
    });
  }

  /** @param {string[]} channels @returns {Promise<boolean>} whether to go on */
  async #ask(channels) {
    for (const channel of channels) this.#set(channel, { status: "asked" });
    /** @type {any} */
    let error = null;
    await this.#client.subscribe(...channels).catch((found) => (error = found));
    const passing = !!error && (PASSING.has(error.code) || !this.#live);
    for (const channel of channels) {
      if (this.get(channel).status !== "asked") continue;
      if (!error) this.#set(channel, { status: "subscribed", error: null });
      else if (!passing && channels.length === 1) this.#set(channel, { status: "refused", error });
      // All or nothing (PROTO-22): each by itself, so that one refusal harms no other.
      else this.#set(channel, { status: "waiting", alone: !passing || this.#entry(channel).alone });
      this.#leave(channel);
      if (!error && this.#entries.has(channel)) this.#stateOf(channel);
    }
    return !passing;
  }

  /**
   * The connection was ended for a channel it may not have: on without what may be the one, which is then asked for
   * by itself.
   */
  #forbidden() {
    const own = [...this.#entries].filter(([, { foreign }]) => !foreign);
    const asked = own.filter(([, { status }]) => status === "asked");
    const suspects = asked.length ? asked : own.filter(([, { status }]) => status === "subscribed");
    for (const [channel] of suspects) {
      this.#client.unsubscribe(channel).catch(() => {});
      if (asked.length === 1) this.#set(channel, { status: "refused", error: new DualcastError("forbidden-channel") });
      else this.#set(channel, { status: "waiting", alone: true });
    }
    if (suspects.length) queueMicrotask(() => this.#client.status.status === "stopped" && this.#client.connect());
  }

  /** @param {import("../types.js").Status} status */
  #connection = ({ status, stopped, leader }) => {
    if (status === "live") return this.#flushSoon();
    if (status === "stopped" && stopped?.code === CLOSE.FORBIDDEN) return leader ? this.#forbidden() : undefined;
    if (status !== "off" && status !== "stopped") return;
    // Whoever comes next may have other rights.
    for (const [channel, entry] of this.#entries) {
      if (entry.status === "refused") this.#set(channel, { status: "waiting", error: null });
    }
  };

  /** A presence that came before anybody listened, or to another tab only. @param {string} channel */
  async #stateOf(channel) {
    if (!channel.startsWith("presence:") || this.get(channel).presence.known) return;
    if (!this.#live) return; // it comes with the connection
    try {
      const { data } = await this.#client.request("presence", { channel });
      this.#state(channel, data);
    } catch {
      // The next state or event tells.
    }
  }

  /** @param {string} channel @param {any} data @param {string} [status] */
  #state(channel, data, status) {
    // What came to somebody who has gone; or else of a channel that the application holds.
    if (!this.#entries.has(channel) && !this.#base.has(channel)) return;
    const { presence, state } = this.#entry(channel);
    if (channel.startsWith("presence:")) {
      this.#set(channel, { presence: reducePresence(presence, { type: "state", data, status }) });
    } else if (data ? !(state?.revision > data.revision) : status === "none") this.#set(channel, { state: data });
  }

  /** @param {string} channel @param {(holder: Holder) => void} tell */
  #tell(channel, tell) {
    for (const holder of [...(this.#entries.get(channel)?.holders ?? [])]) {
      try {
        tell(holder);
      } catch (error) {
        queueMicrotask(() => {
          throw error; // reported as uncaught, and harms no other holder
        });
      }
    }
  }

  #listen() {
    const client = this.#client;
    /** @param {Publication} publication */
    const heard = (publication) => {
      const { channel, event, data } = publication;
      const entry = this.#entries.get(channel);
      if (!entry) return;
      if (event === "presence" && channel.startsWith("presence:")) {
        this.#set(channel, { presence: reducePresence(entry.presence, { type: "presence", data }) });
      } else if (event === channel.split(":", 1)[0] && STATEFUL.test(channel)) this.#state(channel, data);
      this.#tell(channel, (holder) => holder.publication?.(publication));
    };
    this.#offs = [
      client.on("publication", heard),
      client.on("state", ({ channel, data, status }) => {
        this.#state(channel, data, status);
        this.#forget();
      }),
      client.on("gap", (gap) => {
        const fills = client.options.backfill ?? "late"; // what the client fills by itself comes as publications
        if (fills !== "all" && fills !== gap.reason) this.#tell(gap.channel, (holder) => holder.gap?.(gap));
      }),
      client.on("unsubscribed", ({ channels, reason }) => {
        for (const channel of channels) {
          this.#set(channel, { status: "refused", error: new DualcastError("unsubscribed", reason) });
        }
      }),
      client.on("connection", this.#connection),
    ];
  }

  #forget() {
    const idle = [...this.#entries].filter(([, { holders, status }]) => !holders.size && status === "waiting");
    for (const [channel] of idle.slice(0, -MOST_IDLE)) this.#entries.delete(channel);
  }
}
