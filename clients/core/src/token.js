/** @typedef {(why: {fresh: boolean}) => string | null | undefined | Promise<string | null | undefined>} GetToken */

import { DualcastError } from "./errors.js";
import { TIMING } from "./timing.js";

/** The token: fetched when it is needed, once for everybody who asks at the same time. */
export class Token {
  #fetcher;
  /** @type {Promise<string | null | undefined> | null} */
  #asking = null;
  #turn = 0;

  /** @param {GetToken} [fetcher] without one there is no token: a cookie counts, or the URL */
  constructor(fetcher) {
    this.#fetcher = fetcher;
    this.value = "";
  }

  /**
   * The token, "" for none. `fresh`: the one there is will not do.
   * @param {boolean} [fresh] @returns {Promise<string>}
   */
  async get(fresh = false) {
    const { exp } = this.claims();
    const stale = fresh || (typeof exp === "number" && exp * 1_000 <= Date.now());
    if (!this.#fetcher || (this.value && !stale)) return this.value;
    const turn = this.#turn;
    const asking = (this.#asking ??= this.#ask(this.#fetcher, stale && this.value !== ""));
    const token = await asking.catch((error) => {
      if (turn === this.#turn) throw error;
    }).finally(() => {
      if (asking === this.#asking) this.#asking = null;
    });
    return turn === this.#turn ? (this.value = token ?? "") : this.get();
  }

  /** One that hangs is given up, so that it is asked again. @param {GetToken} fetcher @param {boolean} fresh */
  async #ask(fetcher, fresh) {
    /** @type {any} */
    let timer;
    const late = new Promise((_, reject) => {
      timer = setTimeout(() => reject(new DualcastError("token-timeout", "", 0, true)), TIMING.prepare);
    });
    return Promise.race([fetcher({ fresh }), late]).finally(() => clearTimeout(timer));
  }

  /** The token there is counts no longer, nor does one that is on its way. */
  renew() {
    this.value = "";
    this.#asking = null;
    this.#turn += 1;
  }

  /**
   * What the token says, unverified: only to tell users apart in storage.
   * @returns {{sub?: string, tenant?: string, exp?: number}}
   */
  claims() {
    try {
      const part = this.value.split(".")[1].replaceAll("-", "+").replaceAll("_", "/");
      return JSON.parse(new TextDecoder().decode(Uint8Array.from(atob(part), (c) => c.charCodeAt(0))));
    } catch {
      return {};
    }
  }
}
