/** Listeners by name. One that throws harms no other: its error is reported as uncaught. */
export class Emitter {
  /** @type {Map<string, Set<(detail: any) => void>>} */
  #listeners = new Map();

  /** @param {string} name @param {(detail: any) => void} listener @returns {() => void} takes it off again */
  on(name, listener) {
    let found = this.#listeners.get(name);
    if (!found) this.#listeners.set(name, (found = new Set()));
    found.add(listener);
    return () => void found.delete(listener);
  }

  /** @param {string} name @param {any} [detail] */
  emit(name, detail) {
    for (const listener of [...(this.#listeners.get(name) ?? [])]) {
      try {
        listener(detail);
      } catch (error) {
        queueMicrotask(() => {
          throw error;
        });
      }
    }
  }

  /** @param {string} name */
  has(name) {
    return !!this.#listeners.get(name)?.size;
  }
}
