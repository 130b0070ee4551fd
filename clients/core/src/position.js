import { Cursor } from "./cursor.js";

const SAVE_MS = 250;

/** The position of a page: the newest cursor, kept where another page of the session finds it. */
export class Position {
  #cursor = new Cursor();
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

  #soon() {
    if (!this.#timers.has("save")) this.#timers.set("save", SAVE_MS, () => this.save());
  }
}
