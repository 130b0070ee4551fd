/** What cannot be sent waits here, in order. Bounded: what finds no room is refused, so that the caller knows. */
export class MessageQueue {
  #limit;
  /** @type {string[]} */
  #texts = [];

  /** @param {number} [limit] */
  constructor(limit = 100) {
    this.#limit = limit;
  }

  get size() {
    return this.#texts.length;
  }

  /** @param {string} text @returns {boolean} false: full */
  push(text) {
    return this.#texts.length < this.#limit && this.#texts.push(text) > 0;
  }

  /** Sends what waits until one cannot be sent. @param {(text: string) => boolean} send */
  flush(send) {
    while (this.#texts.length && send(this.#texts[0])) this.#texts.shift();
  }

  clear() {
    this.#texts = [];
  }
}
