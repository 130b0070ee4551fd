/** Who waits for the next welcome: that connection was asked for with all channels there are. */
export class Welcomes {
  /** @type {Set<{resolve: () => void, reject: (error: Error) => void}>} */
  #waiting = new Set();

  /**
   * The next one, or an answer that is there sooner; then nothing is kept.
   * @param {Promise<any>} [answer] @returns {Promise<void>}
   */
  next(answer) {
    return new Promise((resolve, reject) => {
      const one = { resolve, reject };
      this.#waiting.add(one);
      answer?.then(() => resolve(), reject).finally(() => this.#waiting.delete(one));
    });
  }

  get size() {
    return this.#waiting.size;
  }

  arrived() {
    for (const { resolve } of this.#waiting) resolve();
    this.#waiting.clear();
  }

  /** @param {Error} error */
  fail(error) {
    for (const { reject } of this.#waiting) reject(error);
    this.#waiting.clear();
  }
}
