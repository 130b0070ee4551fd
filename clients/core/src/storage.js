/** @typedef {{getItem(key: string): string | null, setItem(key: string, value: string): void, removeItem(key: string): void}} Store */

const PREFIX = "dualcast:";

/**
 * A store that never fails: one that is full, forbidden or absent remembers nothing.
 * @param {Store | null | undefined} store
 */
export function gentle(store) {
  return {
    /** @param {string} key @returns {any} */
    get(key) {
      try {
        return JSON.parse(store?.getItem(PREFIX + key) ?? "null");
      } catch {
        return null;
      }
    },
    /** @param {string} key @param {unknown} value null: forget it */
    set(key, value) {
      try {
        if (value === null) store?.removeItem(PREFIX + key);
        else store?.setItem(PREFIX + key, JSON.stringify(value));
      } catch {
        // A page works without a memory.
      }
    },
  };
}
/** @typedef {ReturnType<typeof gentle>} Gentle */

/**
 * A store of the page, or null where it may not be touched.
 * @param {"localStorage" | "sessionStorage"} name @returns {Store | null}
 */
export function pageStore(name) {
  try {
    return globalThis[name] ?? null;
  } catch {
    return null;
  }
}

/**
 * Where a position is kept: per server, tenant, user and set of channels.
 * @param {string} base @param {string} tenant @param {string} user @param {Iterable<string>} channels
 */
export function cursorKey(base, tenant, user, channels) {
  return "cursor:" + JSON.stringify([base, tenant, user, [...channels].sort()]);
}

/** How a server's origin was reached last. @param {string} base */
export const transportKey = (base) => "transport:" + new URL(base).origin;
