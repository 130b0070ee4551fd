import { backoff } from "./backoff.js";

/** Named timers: setting one again replaces it, `stop` ends them all. */
export class Timers {
  #clock;
  /** @type {Map<string, any>} */
  #running = new Map();

  /** @param {import("./engine.js").Clock} clock */
  constructor(clock) {
    this.#clock = clock;
  }

  /** @param {string} name @param {number} ms @param {() => void} run */
  set(name, ms, run) {
    this.clear(name);
    const ring = () => {
      this.#running.delete(name);
      run();
    };
    this.#running.set(name, this.#clock.set(ring, ms));
  }

  /**
   * Some time up to 3 s: many clients notice the same at once (PROTO-42). Later after each of `tries` that failed.
   * @param {string} name @param {() => void} run @param {number} [tries]
   */
  soon(name, run, tries = 0) {
    this.set(name, backoff(tries, this.#clock.random(), 3_000), run);
  }

  /** @param {string} name */
  has(name) {
    return this.#running.has(name);
  }

  /** @param {string} name */
  clear(name) {
    this.#clock.clear(this.#running.get(name));
    this.#running.delete(name);
  }

  stop() {
    for (const name of this.#running.keys()) this.clear(name);
  }
}
