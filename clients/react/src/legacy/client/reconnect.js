/**
 * When to come back. `delay` gets how many attempts failed before this one, from 0, and a random number from 0 to 1.
 * @typedef {{attempts: number, delay: (attempt: number, random: number) => number}} Policy
 */

export const MAX_ATTEMPTS = 15;
const JITTER = 0.3;

/**
 * Exponential backoff (legacy-wire.md section 6.8): `interval * 2^attempt` plus 0 to 30 %, at most `cap`; ms.
 * @param {number} attempt @param {number} random @param {number} [interval] @param {number} [cap]
 */
export function reconnectDelay(attempt, random, interval = 2_000, cap = 30_000) {
  const wait = interval * 2 ** Math.min(attempt, 20);
  return Math.min(wait + random * JITTER * wait, cap);
}

/** @param {number} [interval] @param {number} [cap] @param {number} [attempts] @returns {Policy} */
export const backoff = (interval, cap, attempts = MAX_ATTEMPTS) => ({
  attempts,
  delay: (attempt, random) => reconnectDelay(attempt, random, interval, cap),
});

/** Always the same wait (legacy-wire.md section 4.5). @param {number} ms @param {number} attempts @returns {Policy} */
export const steady = (ms, attempts) => ({ attempts, delay: () => ms });

/** Counts attempts and waits before each. */
export class Reconnect {
  #policy;
  #timers;
  #random;
  /** @type {(() => void) | null} */
  #waiting = null;
  attempts = 0;

  /** @param {Policy} policy @param {import("@dualcast/client/src/timers.js").Timers} timers @param {() => number} random */
  constructor(policy, timers, random) {
    this.#policy = policy;
    this.#timers = timers;
    this.#random = random;
  }

  /** Runs `attempt` after a while. @param {() => void} attempt @returns {boolean} false: none is left */
  schedule(attempt) {
    if (this.attempts >= this.#policy.attempts) return false;
    const ms = this.#policy.delay(this.attempts, this.#random());
    this.attempts += 1;
    this.#waiting = () => {
      this.stop();
      attempt();
    };
    this.#timers.set("reconnect", ms, this.#waiting);
    return true;
  }

  /** The wait is over: the network is back. */
  hurry() {
    this.#waiting?.();
  }

  /** The wait is called off; attempts stay counted. */
  stop() {
    this.#waiting = null;
    this.#timers.clear("reconnect");
  }

  /** A connection works: the next one that fails is the first. */
  reset() {
    this.stop();
    this.attempts = 0;
  }
}
