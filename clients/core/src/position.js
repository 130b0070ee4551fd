import { Cursor } from "./cursor.js";

const SAVE_MS = 250;

/** The position of a page: the newest cursor, kept where another page of the session finds it. */
export class Position {
  #cursor = new Cursor();
  /** Gaps that are being filled, by their URLs: the position is behind them already. @type {Record<string, any>} */
  gaps = {};
  #acked = "";
  #loaded = false;
  #store;
  #key;
  #timers;
  #manual;

  /**
   * @param {import("./storage.js").Gentle} store @param {() => string} key "": do not write now
   * @param {import("./timers.js").Timers} timers @param {boolean} [manual] what is acknowledged is kept, not what arrived
   */
  constructor(store, key, timers, manual) {
    this.#store = store;
    this.#key = key;
    this.#timers = timers;
    this.#manual = manual;
  }

  get newest() {
    return this.#cursor.newest;
  }

  /** Where to go on: what this page had, else what was kept. @returns {string} */
  start() {
    if (!this.#loaded && !this.newest) this.#cursor.take(this.#store.get(this.#key()));
    this.#loaded = true;
    return this.newest;
  }

  /** @param {unknown} cursor */
  take(cursor) {
    if (this.#cursor.take(cursor)) this.#soon();
  }

  /** @param {string} cursor */
  ack(cursor) {
    this.#acked = cursor;
    this.#soon();
  }

  save() {
    this.#timers.clear("save");
    const cursor = this.#manual ? this.#acked : this.newest;
    const key = this.#key();
    if (cursor && key) this.#store.set(key, cursor);
  }

  /** Keeps the gaps for a page that goes on. @param {string} url @param {any} [gap] missing: it is filled */
  owe(url, gap) {
    if (gap) this.gaps[url] = gap;
    else delete this.gaps[url];
    const key = this.#key();
    if (key) this.#store.set("gaps:" + key, Object.keys(this.gaps).length ? this.gaps : null);
  }

  /** Gaps that a page before this one left. @returns {any[]} */
  owed() {
    const kept = Object.entries(this.#store.get("gaps:" + this.#key()) ?? {});
    return kept.filter(([url]) => !this.gaps[url]).map(([, gap]) => gap);
  }

  #soon() {
    if (!this.#timers.has("save")) this.#timers.set("save", SAVE_MS, () => this.save());
  }
}
