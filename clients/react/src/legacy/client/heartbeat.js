/** How many beats may stay unanswered by a server that has answered before. */
const MISSED = 2;

/**
 * Beats while a connection works. An answer that never comes is harmless, since older servers give none; a beat that
 * cannot be sent is not (legacy-wire.md section 6.8). A server that has answered once is expected to go on doing so.
 */
export class Heartbeat {
  #interval;
  #send;
  #dead;
  #timers;
  #answers = false;
  #missed = 0;

  /**
   * @param {number} interval ms
   * @param {() => boolean} send sends one beat; false: it could not
   * @param {() => void} dead the connection is of no use
   * @param {import("@dualcast/client/src/timers.js").Timers} timers
   */
  constructor(interval, send, dead, timers) {
    this.#interval = interval;
    this.#send = send;
    this.#dead = dead;
    this.#timers = timers;
  }

  start() {
    this.#answers = false;
    this.#missed = 0;
    this.#wait();
  }

  stop() {
    this.#timers.clear("heartbeat");
  }

  /** Something came. @param {boolean} answer it answers a beat */
  alive(answer) {
    this.#missed = 0;
    this.#answers ||= answer;
  }

  #wait() {
    this.#timers.set("heartbeat", this.#interval, () => {
      if ((this.#answers && this.#missed >= MISSED) || !this.#send()) return this.#dead();
      this.#missed += 1;
      this.#wait();
    });
  }
}
