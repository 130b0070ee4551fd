// How long to wait before the next attempt, in ms. Pure: the caller brings the random number.

export const FIRST_MS = 1_000;
export const CAP_MS = 30_000;

/**
 * Full jitter (PROTO-30): anywhere up to a ceiling that doubles from 1 s to 30 s, so that clients which lost the
 * same server do not come back together. Never below 50 ms: a loop that fails at once must not spin.
 * @param {number} attempt how many failed before, from 0
 * @param {number} random 0 to 1
 * @param {number} [first] @param {number} [cap]
 */
export function backoff(attempt, random, first = FIRST_MS, cap = CAP_MS) {
  const ceiling = Math.min(cap, first * 2 ** Math.min(attempt, 20));
  return Math.max(50, Math.round(random * ceiling));
}

/**
 * A delay the server chose, made safe: the server has spread its clients already, so it is not shortened.
 * @param {unknown} ms @returns {number | undefined} undefined: it chose none
 */
export function served(ms) {
  return typeof ms === "number" && ms >= 0 ? Math.min(ms, 3_600_000) : undefined;
}
