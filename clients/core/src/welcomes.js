/** Who waits for the next welcome: that connection was asked for with all channels there are. */
export class Welcomes {
  /** @type {Set<{resolve: () => void, reject: (error: Error) => void, channels?: string[]}>} */
  #waiting = new Set();

  /**
   * The next one, or an answer that is there sooner; then nothing is kept.
   * @param {Promise<any>} [answer] @param {string[]} [channels] it is waited for @returns {Promise<void>}
   */
  next(answer, channels) {
    return new Promise((resolve, reject) => {
      const one = { resolve, reject, channels };
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

  /** @param {Error & {channels?: string[]}} error of those who wait for its channels; it names none: of all */
  fail(error) {
    for (const one of this.#waiting) {
      if (error.channels && !one.channels?.some((name) => error.channels?.includes(name))) continue;
      one.reject(error);
      this.#waiting.delete(one);
    }
  }
}
