import { DualcastError } from "./errors.js";
import { parsed } from "./json.js";

/** Longer than any answer takes: then it is lost. */
const ANSWER_MS = 45_000;

/** REST calls with the client's token. */
export class Rest {
  #token;
  #fetcher;
  #credentials;

  /**
   * @param {string} base URL without a slash at the end @param {import("./token.js").Token} token
   * @param {typeof fetch} fetcher @param {boolean} [credentials]
   */
  constructor(base, token, fetcher, credentials) {
    this.base = base;
    this.#token = token;
    this.#fetcher = fetcher;
    this.#credentials = credentials;
  }

  /**
   * The JSON of the answer, null where there is none. A token the server calls expired is renewed once.
   * @param {string} method @param {string} path @param {unknown} [body] @param {boolean} [again]
   * @returns {Promise<any>}
   */
  async call(method, path, body, again = false) {
    const token = await this.#token.get(again);
    /** @type {Record<string, string>} */
    const headers = token ? { authorization: `Bearer ${token}` } : {};
    if (body !== undefined) headers["content-type"] = "application/json";
    let answer, text;
    try {
      answer = await this.#fetcher(this.base + path, {
        method,
        headers,
        body: body === undefined ? undefined : JSON.stringify(body),
        credentials: this.#credentials ? "include" : "same-origin",
        signal: AbortSignal.timeout(ANSWER_MS),
      });
      text = await answer.text();
    } catch (error) {
      throw new DualcastError("unreachable", /** @type {Error} */ (error).message, 0, true);
    }
    const found = parsed(text);
    if (answer.ok) return found;
    const code = found?.code ?? `status-${answer.status}`;
    if (code === "token-expired" && !again) return this.call(method, path, body, true);
    throw new DualcastError(code, found?.detail ?? "", answer.status, found?.retryable ?? answer.status >= 500);
  }
}
