import { Seen } from "./seen.js";

/**
 * The position to resume from (PROTO-3, PROTO-27). Cursors are opaque, so of two connections that bring the
 * same publications one after the other, which is ahead is told by arrival: a cursor that was passed before
 * does not take the position back.
 */
export class Cursor {
  #passed;

  /** @param {string} [start] @param {number} [limit] cursors remembered */
  constructor(start = "", limit = 2_048) {
    /** "" : none yet. */
    this.newest = start;
    this.#passed = new Seen(limit);
    if (start) this.#passed.add(start);
  }

  /** A cursor arrived; whether it moved the position. @param {unknown} cursor */
  take(cursor) {
    if (typeof cursor !== "string" || !cursor || !this.#passed.add(cursor)) return false;
    this.newest = cursor;
    return true;
  }
}
