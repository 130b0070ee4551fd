/** How many ids are remembered: more than any two connections of a page can be apart (recovery pages are 500). */
export const REMEMBERED = 8_192;

/** Publication ids that were delivered, the newest `limit` of them (PROTO-2). */
export class Seen {
  #limit;
  /** @type {Set<string>} */
  #ids;

  /** @param {number} [limit] */
  constructor(limit = REMEMBERED) {
    this.#limit = limit;
    this.#ids = new Set();
  }

  /** Notes `id`; false if it was known. @param {string} id */
  add(id) {
    if (this.#ids.has(id)) return false;
    this.#ids.add(id);
    if (this.#ids.size > this.#limit) this.#ids.delete(/** @type {string} */ (this.#ids.values().next().value));
    return true;
  }

  /** @param {string} id */
  has(id) {
    return this.#ids.has(id);
  }

  get size() {
    return this.#ids.size;
  }
}
