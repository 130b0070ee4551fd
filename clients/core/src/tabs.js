import { DualcastError } from "./errors.js";

/**
 * What a client needs of the tabs it shares its connection with.
 * @typedef {object} Sharer
 * @property {(leading: boolean) => void} lead
 * @property {(frame: any) => void} frame of a follower: what the leader's connection brought
 * @property {(status: any) => void} status of a follower: the leader's
 * @property {() => any} present of a leader: status and position
 * @property {() => string[]} channels this tab's own
 * @property {(channels: string[], again?: boolean) => Promise<void>} others of a leader: what other tabs want has changed; `again`: none of it
 *   was had
 * @property {(reason: string, channels: string[]) => void} refused of a leader: these are not to be had
 * @property {(type: string, fields: any) => Promise<any>} command of a leader: on behalf of a follower
 */
/** Commands of a follower that may wait. */
const MOST = 100;
/** Refusals of all that was asked for, not of some of it. */
const FOR_GOOD = ["too-many-channels", "bad-channel"];
/** What is asked again, ms: the first time, doubled each time, and at most. */
const [SOON, LATE] = [200, 5_000];

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
  /** @type {Map<number, {message: {command: string, fields: any}, to: string, resolve: (reply: any) => void, reject: (error: Error) => void}>} `to`: the leader it was posted to */
  #asked = new Map();
  #number = 0;
  /** The leader that knows this tab; "": none yet. */
  #known = "";
  /** What is asked again when a page that was paused goes on, each with its timer. @type {Map<() => void, any>} */
  #again = new Map();
  /** What the leader was told that they want. @type {Set<string>} */
  #given = new Set();
  /** No further hello. */
  #unsaid = () => {};

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
    const now = () => [...this.#again.keys()].forEach((again) => again());
    for (const type of ["visibilitychange", "resume"]) globalThis.document?.addEventListener(type, now, { signal });
    globalThis.addEventListener?.("pageshow", now, { signal });
    // Nobody hears of this tab before its lock is held: else it would be taken for gone.
    this.#lock(this.#tab, () => {
      if (signal.aborted) return;
      this.#channel = new BroadcastChannel(this.#name);
      this.#channel.onmessage = ({ data }) => [this.#tab, "all"].includes(data.to) && this.#hear(data);
      this.hello();
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
    this.#calm();
    this.#known = "";
    this.#channel?.close();
    this.#channel = null;
    this.#wanted.clear();
    this.#given.clear();
    if (this.leading) this.#sharer.lead((this.leading = false));
    for (const { reject } of this.#asked.values()) reject(new DualcastError("disconnected"));
    this.#asked.clear();
  }

  /** Tells the leader what this tab wants, until one answers: what is posted to a page that is paused is lost. */
  hello(wait = SOON) {
    this.#unsaid();
    this.#known = "";
    if (this.leading || !this.#channel) return;
    this.#post({ type: "hello", channels: this.#sharer.channels() });
    this.#unsaid = this.#later(() => this.hello(2 * wait), wait);
  }

  /** From the leader to the others. @param {"frame" | "status"} type @param {any} body */
  tell(type, body) {
    if (!this.leading) return;
    this.#post({ type, body });
    this.#without(body);
  }

  /** What was taken away nobody wants any more. @param {{type?: string, channels?: string[]}} frame */
  #without({ type, channels = [] }) {
    if (type !== "unsubscribed") return;
    for (const [tab, theirs] of this.#wanted) this.#wanted.set(tab, theirs.filter((one) => !channels.includes(one)));
  }

  /** A command by way of the leader. @param {string} command @param {any} fields @returns {Promise<any>} */
  ask(command, fields) {
    return new Promise((resolve, reject) => {
      if (this.#asked.size >= MOST) return reject(new DualcastError("outbox-full", "", 0, true));
      const ref = (this.#number += 1);
      const message = { type: "ask", ref, command, fields: plain(fields) };
      this.#asked.set(ref, { message, to: this.#known, resolve, reject });
      if (this.#known) this.#post(message);
    });
  }

  /**
   * A browser refuses the lock to a page that is paused when its turn comes: then it is asked for again.
   * @param {string} name @param {() => any} held @param {number} [wait]
   */
  #lock(name, held, wait = SOON) {
    const { signal } = /** @type {AbortController} */ (this.#part);
    let had = false;
    const holding = () => {
      had = true;
      return held();
    };
    navigator.locks.request(`${this.#name}:${name}`, { signal }, holding).catch(() => {
      if (!had && !signal.aborted) this.#later(() => this.#lock(name, held, 2 * wait), wait);
    });
  }

  /** @param {() => void} run @param {number} wait ms at most: a page that is shown does not wait @returns {() => void} takes it back */
  #later(run, wait) {
    const again = () => {
      off();
      run();
    };
    const off = () => {
      clearTimeout(this.#again.get(again));
      this.#again.delete(again);
    };
    this.#again.set(again, setTimeout(again, Math.min(wait, LATE)));
    return off;
  }

  /** Nothing is asked again. */
  #calm() {
    for (const timer of this.#again.values()) clearTimeout(timer);
    this.#again.clear();
  }

  /** @param {object} message @param {string} [to] one tab */
  #post(message, to = "all") {
    this.#channel?.postMessage({ ...message, from: this.#tab, to });
  }

  /** @param {string} leader that has answered */
  #met(leader) {
    this.#unsaid();
    this.#known = leader;
    for (const one of this.#asked.values()) {
      if (one.to !== leader) this.#post(one.message);
      one.to = leader;
    }
  }

  #lead() {
    this.leading = true;
    this.#unsaid();
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
          ({ code = "failed", reason, status, retryable, channels: which }) =>
            this.#post({ type: "answer", ref, error: [code, reason, status, retryable, which] }, from),
        );
      }
    } else if (type === "frame") {
      this.#without(body);
      this.#sharer.frame(body);
    } else if (type === "status") {
      for (const [tab, theirs] of wanted ?? []) if (tab !== this.#tab) this.#wanted.set(tab, theirs);
      this.#sharer.status(body);
      if (wanted) this.#met(from);
      else if (this.#known && this.#known !== from) this.hello(); // its first word was lost
    } else if (type === "leader") {
      for (const one of this.#asked.values()) one.to = "";
      this.hello();
    } else if (type === "answer") {
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

  /** Tells what they want, and again where that failed: one channel that is refused costs nobody the others. */
  async #others(wait = 0) {
    const all = new Set([...this.#wanted.values()].flat());
    const added = [...all].filter((one) => !this.#given.has(one));
    this.#given = all;
    try {
      await this.#sharer.others([...all], wait > 0);
    } catch (/** @type {any} */ { code, channels = FOR_GOOD.includes(code) ? added : null, retryable }) {
      if (!this.leading || !(channels || retryable)) return;
      for (const one of channels ?? added) this.#given.delete(one);
      if (channels) this.#sharer.refused(code, channels);
      this.#later(() => this.#others(2 * wait || SOON), wait || SOON);
    }
  }
}

/** What can be posted, and is JSON when the leader sends it. @param {unknown} fields */
function plain(fields = {}) {
  try {
    JSON.stringify(fields);
    return structuredClone(fields);
  } catch {
    throw new DualcastError("bad-command");
  }
}

/**
 * For the option `share`: all pages of this browser that name the same user have one connection.
 * @param {string} name
 * @returns {(base: string, tab: string, sharer: Sharer) => Tabs | null} null: the browser cannot
 */
export const tabs = (name) => (base, tab, sharer) =>
  globalThis.navigator?.locks && typeof BroadcastChannel === "function" ? new Tabs(`${base}:${name}`, tab, sharer) : null;
