const COLLECT_MS = 500;
const AGAIN_MS = 5_000;
const MAX_IDS = 100;
const MAX_WAITING = 500;
/** Refusals that pass: a new token, a slow network, too many at once. */
const PASSING = new Set([401, 408, 425, 429]);

/** Tells the server what was read: what comes close together in one call, and later what failed. */
export class ReadMarks {
  #send;
  #timers;
  /** @type {Set<string>} */
  #waiting = new Set();
  #sending = false;

  /** @param {(ids: string[]) => Promise<unknown>} send @param {import("@dualcast/client/src/timers.js").Timers} timers */
  constructor(send, timers) {
    this.#send = send;
    this.#timers = timers;
  }

  /** @param {readonly string[]} ids of messages; of too many that wait the oldest are forgotten */
  add(ids) {
    for (const id of ids) this.#waiting.add(id);
    for (const id of this.#waiting) {
      if (this.#waiting.size <= MAX_WAITING) break;
      this.#waiting.delete(id);
    }
    if (!this.#sending && !this.#timers.has("read")) this.#later(COLLECT_MS);
  }

  /** @param {number} ms */
  #later(ms) {
    if (this.#waiting.size) this.#timers.set("read", ms, () => void this.#tell());
  }

  async #tell() {
    const ids = [...this.#waiting].slice(0, MAX_IDS);
    this.#sending = true;
    try {
      await this.#send(ids);
      for (const id of ids) this.#waiting.delete(id);
      this.#later(COLLECT_MS);
    } catch (error) {
      const { status = 0 } = /** @type {{status?: number}} */ (error ?? {});
      // Not a participant any more, or no such conversation: it would be refused for ever.
      if (status >= 400 && status < 500 && !PASSING.has(status)) for (const id of ids) this.#waiting.delete(id);
      this.#later(AGAIN_MS);
    } finally {
      this.#sending = false;
    }
  }

  /** What waits is forgotten. */
  stop() {
    this.#waiting.clear();
    this.#timers.stop();
  }
}
