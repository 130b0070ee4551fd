import { Emitter } from "@dualcast/client/src/emitter.js";
import { pageStore } from "@dualcast/client/src/storage.js";

/**
 * Where a token is read. `subscribe` tells of changes it hears of itself.
 * @typedef {{read: () => string | null | undefined, subscribe?: (changed: () => void) => () => void}} TokenSource
 */

export const TOKEN_KEY = "token";

/** From the browser's storage; hears of sign-ins in other tabs. @param {string} [key] @returns {TokenSource} */
export const localStorageSource = (key = TOKEN_KEY) => ({
  read() {
    try {
      return pageStore("localStorage")?.getItem(key);
    } catch {
      return null;
    }
  },
  subscribe(changed) {
    /** @param {StorageEvent} event */
    const listener = (event) => {
      if (event.key === key || event.key === null) changed();
    };
    globalThis.addEventListener?.("storage", listener);
    return () => globalThis.removeEventListener?.("storage", listener);
  },
});

/** From a cookie that scripts may read. @param {string} [name] @returns {TokenSource} */
export const cookieSource = (name = TOKEN_KEY) => ({
  read() {
    const pairs = (globalThis.document?.cookie ?? "").split("; ");
    const found = pairs.find((pair) => pair.startsWith(`${name}=`))?.slice(name.length + 1);
    try {
      return found && decodeURIComponent(found);
    } catch {
      return found;
    }
  },
});

/** The first of several that has one. @param {...TokenSource} sources @returns {TokenSource} */
export const firstOf = (...sources) => ({
  read() {
    for (const source of sources) {
      const token = source.read();
      if (token) return token;
    }
    return null;
  },
  subscribe(changed) {
    const offs = sources.map((source) => source.subscribe?.(changed));
    return () => offs.forEach((off) => off?.());
  },
});

/** Who is signed in, as far as a socket needs to know. It reads; signing in is the application's. */
export class AuthService {
  #source;
  #events = new Emitter();

  /** @param {TokenSource} [source] */
  constructor(source = firstOf(localStorageSource(), cookieSource())) {
    this.#source = source;
  }

  /** Tokens come from another place from now on. @param {TokenSource} source */
  use(source) {
    this.#source = source;
    this.#events.emit("source");
    this.changed();
  }

  /** @returns {string} "" : nobody is signed in */
  getToken() {
    return this.#source.read() || "";
  }

  isAuthenticated() {
    return this.getToken() !== "";
  }

  /** Call it after signing in or out: storage tells only other tabs, and cookies tell nobody. */
  changed() {
    this.#events.emit("change");
  }

  /** @param {() => void} listener @returns {() => void} takes it off */
  subscribe(listener) {
    let off = this.#source.subscribe?.(listener);
    const follow = this.#events.on("source", () => {
      off?.();
      off = this.#source.subscribe?.(listener);
    });
    const told = this.#events.on("change", listener);
    return () => {
      off?.();
      follow();
      told();
    };
  }
}

export const authService = new AuthService();
