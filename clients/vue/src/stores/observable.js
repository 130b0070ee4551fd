/**
 * A value and those who watch it. It knows no framework: `get` and `subscribe` are what React's
 * `useSyncExternalStore` and a Vue `shallowRef` need.
 * @template T
 */
export class Observable {
  #value;
  /** @type {Set<{changed: () => void}>} */
  #watchers = new Set();
  #started = false;

  /** @param {T} value */
  constructor(value) {
    this.#value = value;
  }

  /** The same object until something has changed. @returns {T} */
  get = () => this.#value;

  /** @param {T} value */
  set(value) {
    if (Object.is(value, this.#value)) return;
    this.#value = value;
    for (const { changed } of [...this.#watchers]) changed();
  }

  /** @param {() => void} changed @returns {() => void} takes it off; more than once does no harm */
  subscribe = (changed) => {
    const watcher = { changed };
    this.#watchers.add(watcher);
    if (!this.#started) {
      this.#started = true;
      this.start();
    }
    return () => {
      // A component may make room for another that watches the same.
      if (this.#watchers.delete(watcher)) queueMicrotask(() => this.#end());
    };
  };

  #end() {
    if (!this.#started || this.#watchers.size) return;
    this.#started = false;
    this.stop();
  }

  /** Somebody watches. */
  start() {}

  /** Nobody watches any more. */
  stop() {}

  get watched() {
    return this.#watchers.size > 0;
  }
}
