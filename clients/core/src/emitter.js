/** Calls what is the application's: where it throws, its error is reported as uncaught. @param {() => void} call */
export function safely(call) {
  try {
    call();
  } catch (error) {
    queueMicrotask(() => {
      throw error;
    });
  }
}

/** Listeners by name. One that throws harms no other. */
export class Emitter {
  /** @type {Map<string, Set<{listener: (detail: any) => void}>>} */
  #listeners = new Map();

  /** @param {string} name @param {(detail: any) => void} listener @returns {() => void} takes it off again */
  on(name, listener) {
    let found = this.#listeners.get(name);
    if (!found) this.#listeners.set(name, (found = new Set()));
    const one = { listener }; // the same function may be there for two
    found.add(one);
    return () => void found.delete(one);
  }

  /** @param {string} name @param {any} [detail] */
  emit(name, detail) {
    for (const { listener } of [...(this.#listeners.get(name) ?? [])]) safely(() => listener(detail));
  }

  /** @param {string} name */
  has(name) {
    return !!this.#listeners.get(name)?.size;
  }
}
