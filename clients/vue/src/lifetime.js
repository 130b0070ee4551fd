import { getCurrentInstance, getCurrentScope, onMounted, onScopeDispose, shallowRef, watch } from "vue";

/**
 * Runs `start` while the scope lives: in a component from the moment it is mounted, so never while a server renders
 * (nobody would stop it there) and never before a page's HTML was taken over; elsewhere at once.
 * @param {() => () => void} start gives what stops it
 */
export function whileAlive(start) {
  let over = false;
  let stop = () => {};
  const begin = () => {
    if (!over) stop = start();
  };
  if (!getCurrentScope()) throw new Error("composables of dualcast belong into setup() or an effectScope()");
  onScopeDispose(() => {
    over = true;
    stop();
  });
  const instance = getCurrentInstance();
  if (instance && !instance.isMounted) onMounted(begin);
  else begin();
}

/**
 * @template T @typedef {{get: () => T, subscribe: (changed: () => void) => () => void}} Readable
 */

/**
 * The value of a store as a ref, followed while the scope lives.
 * @template T
 * @param {Readable<T>} store @param {T} [first] before that
 */
export const useStore = (store, first = store.get()) => useStoreOf(() => true, () => store, first);

/**
 * The same of a store for each key.
 * @template T, K
 * @param {() => K | null | undefined | false | ""} source a reactive key; nothing: no store for now
 * @param {(key: K) => Readable<T>} open
 * @param {T} none before that, and where there is no store
 */
export function useStoreOf(source, open, none) {
  const value = /** @type {import("vue").ShallowRef<T>} */ (shallowRef(none));
  whileAlive(() => {
    let off = () => {};
    const stop = watch(
      source,
      (key) => {
        off();
        off = () => {};
        if (!key) return void (value.value = none);
        const store = open(key);
        off = store.subscribe(() => void (value.value = store.get()));
        value.value = store.get();
      },
      { immediate: true },
    );
    return () => {
      stop();
      off();
    };
  });
  return value;
}
