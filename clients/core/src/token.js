/** @typedef {(why: {fresh: boolean}) => string | null | undefined | Promise<string | null | undefined>} GetToken */

/** The token: fetched when it is needed, once for everybody who asks at the same time. */
export class Token {
  #fetcher;
  /** @type {Promise<string> | null} */
  #asking = null;

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
    this.#asking ??= Promise.resolve(this.#fetcher({ fresh: stale && this.value !== "" }))
      .then((token) => (this.value = token ?? ""))
      .finally(() => (this.#asking = null));
    return this.#asking;
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
