/**
 * A value and who listens to it: what React's `useSyncExternalStore` and a Vue `shallowRef` need. `start` runs at the first listener, what it returns after
 * the last.
 * @template T
 */
export class Store {
  #value;
  #start;
  /** @type {Set<() => void>} */
  #listeners = new Set();
  /** @type {(() => void) | null} */
  #stop = null;

  /** @param {T} value @param {() => () => void} [start] */
  constructor(value, start = () => () => {}) {
    this.#value = value;
    this.#start = start;
  }

  get = () => this.#value;

  /** @param {T} value */
  set(value) {
    if (Object.is(value, this.#value)) return;
    this.#value = value;
    for (const listener of [...this.#listeners]) listener();
  }

  /** @param {Partial<T>} change of a value that is an object */
  patch(change) {
    this.set({ ...this.#value, ...change });
  }

  /** @param {() => void} listener @returns {() => void} */
  subscribe = (listener) => {
    const own = () => listener(); // one listener may subscribe twice
    this.#listeners.add(own);
    this.#stop ??= this.#start();
    return () => {
      if (!this.#listeners.delete(own) || this.#listeners.size) return;
      this.#stop?.();
      this.#stop = null;
    };
  };
}
