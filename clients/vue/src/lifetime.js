import { getCurrentInstance, getCurrentScope, onMounted, onScopeDispose, shallowRef } from "vue";

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
 * The value of a store as a ref, followed while the scope lives.
 * @template T
 * @param {{get: () => T, subscribe: (changed: () => void) => () => void}} store @param {T} [first] before that
 * @returns {import("vue").ShallowRef<T>}
 */
export function useStore(store, first = store.get()) {
  const value = shallowRef(first);
  const update = () => void (value.value = store.get());
  whileAlive(() => {
    const off = store.subscribe(update);
    update();
    return off;
  });
  return value;
}
