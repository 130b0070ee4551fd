import { DualcastError } from "./errors.js";

/**
 * What a client needs of the tabs it shares its connection with.
 * @typedef {object} Sharer
 * @property {(leading: boolean) => void} lead
 * @property {(frame: any) => void} frame of a follower: what the leader's connection brought
 * @property {(status: any) => void} status of a follower: the leader's
 * @property {() => any} present of a leader: status and position
 * @property {() => string[]} channels this tab's own
 * @property {(channels: string[]) => void} others of a leader: what other tabs want has changed
 * @property {(type: string, fields: any) => Promise<any>} command of a leader: on behalf of a follower
 */
/** Commands of a follower that may wait. */
const MOST = 100;

/**
 * One page's part in a group of tabs with one connection: the tab that holds a Web Lock leads, the others hear by
 * BroadcastChannel. The browser hands the lock on when the leader goes, however it goes; a lock of each tab's
 * own tells the leader when a follower has gone.
 */
export class Tabs {
  leading = false;
  #name;
  #tab;
  #sharer;
  /** @type {BroadcastChannel | null} */
  #channel = null;
  /** @type {AbortController | null} */
  #part = null;
  /** @type {Map<string, string[]>} channels of other tabs */
  #wanted = new Map();
  /** @type {Map<number, {message: {command: string, fields: any}, resolve: (reply: any) => void, reject: (error: Error) => void}>} */
  #asked = new Map();
  #number = 0;

  /** @param {string} name of the group @param {string} tab @param {Sharer} sharer */
  constructor(name, tab, sharer) {
    this.#name = `dualcast:${name}`;
    this.#tab = tab;
    this.#sharer = sharer;
  }

  start() {
    if (this.#part) return;
    const { signal } = (this.#part = new AbortController());
    const end = new Promise((done) => signal.addEventListener("abort", done));
    // Nobody hears of this tab before its lock is held: else it would be taken for gone.
    this.#lock(this.#tab, () => {
      if (signal.aborted) return;
      this.#channel = new BroadcastChannel(this.#name);
      this.#channel.onmessage = ({ data }) => [this.#tab, "all"].includes(data.to) && this.#hear(data);
      this.#again();
      this.#lock("leader", () => {
        if (signal.aborted) return;
        this.#lead();
        return end;
      });
      return end;
    });
  }

  /** Gives up the lead, and hears nothing any more. */
  stop() {
    if (!this.leading) this.#post({ type: "leave" });
    this.#part?.abort();
    this.#part = null;
    this.#channel?.close();
    this.#channel = null;
    this.#wanted.clear();
    if (this.leading) this.#sharer.lead((this.leading = false));
    for (const { reject } of this.#asked.values()) reject(new DualcastError("disconnected"));
    this.#asked.clear();
  }

  /** Tells the leader what this tab wants. */
  hello() {
    if (!this.leading) this.#post({ type: "hello", channels: this.#sharer.channels() });
  }

  /** From the leader to the others. @param {"frame" | "status"} type @param {any} body */
  tell(type, body) {
    if (this.leading) this.#post({ type, body });
  }

  /** A command by way of the leader. @param {string} command @param {any} fields @returns {Promise<any>} */
  ask(command, fields) {
    return new Promise((resolve, reject) => {
      if (this.#asked.size >= MOST) return reject(new DualcastError("outbox-full", "", 0, true));
      const ref = (this.#number += 1);
      const message = { type: "ask", ref, command, fields };
      this.#post(message); // throws where it holds what cannot be posted
      this.#asked.set(ref, { message, resolve, reject });
    });
  }

  /** @param {string} name @param {() => any} held */
  #lock(name, held) {
    const { signal } = /** @type {AbortController} */ (this.#part);
    navigator.locks.request(`${this.#name}:${name}`, { signal }, held).catch(() => {});
  }

  /** @param {object} message @param {string} [to] one tab */
  #post(message, to = "all") {
    this.#channel?.postMessage({ ...message, from: this.#tab, to });
  }

  /** To a leader that does not know this tab. */
  #again() {
    this.hello();
    for (const { message } of this.#asked.values()) this.#post(message);
  }

  #lead() {
    this.leading = true;
    for (const tab of this.#wanted.keys()) this.#watch(tab);
    this.#others(); // before it connects: then nothing of their channels is missed
    this.#sharer.lead(true);
    this.#post({ type: "leader" });
    for (const { message, resolve, reject } of this.#asked.values()) {
      this.#sharer.command(message.command, message.fields).then(resolve, reject);
    }
    this.#asked.clear();
  }

  /** @param {any} message */
  #hear({ type, from, body, ref, error, channels, wanted, command, fields }) {
    // Who follows keeps in mind what the others want: it may lead next.
    if (type === "hello") {
      const known = this.#wanted.has(from);
      this.#wanted.set(from, channels);
      if (!this.leading) return;
      if (!known) this.#watch(from);
      this.#others();
      this.#post({ type: "status", body: this.#sharer.present(), wanted: [...this.#wanted] }, from);
    } else if (type === "leave") this.#left(from);
    else if (this.leading) {
      if (type === "ask") {
        this.#sharer.command(command, fields).then(
          (reply) => this.#post({ type: "answer", ref, body: reply }, from),
          ({ code = "failed", reason, status, retryable }) =>
            this.#post({ type: "answer", ref, error: [code, reason, status, retryable] }, from),
        );
      }
    } else if (type === "frame") this.#sharer.frame(body);
    else if (type === "status") {
      for (const [tab, theirs] of wanted ?? []) if (tab !== this.#tab) this.#wanted.set(tab, theirs);
      this.#sharer.status(body);
    } else if (type === "leader") this.#again();
    else if (type === "answer") {
      const asked = this.#asked.get(ref);
      this.#asked.delete(ref);
      if (error) asked?.reject(new DualcastError(.../** @type {[string]} */ (error)));
      else asked?.resolve(body);
    }
  }

  /** @param {string} tab */
  #left(tab) {
    if (this.#wanted.delete(tab) && this.leading) this.#others();
  }

  /** Tabs that end without a word leave their lock behind. @param {string} tab */
  #watch(tab) {
    this.#lock(tab, () => this.#left(tab));
  }

  #others() {
    this.#sharer.others([...new Set([...this.#wanted.values()].flat())]);
  }
}

/**
 * For the option `share`: all pages of this browser that name the same user have one connection.
 * @param {string} name
 * @returns {(base: string, tab: string, sharer: Sharer) => Tabs | null} null: the browser cannot
 */
export const tabs = (name) => (base, tab, sharer) =>
  globalThis.navigator?.locks && typeof BroadcastChannel === "function" ? new Tabs(`${base}:${name}`, tab, sharer) : null;
