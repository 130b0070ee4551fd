// Calls of the REST interface with the token of who signed in, and refusals in words.

const TIMEOUT_MS = 15_000;

/** What people read; anything else in the words of the server. */
const WORDS = {
  "admin-only": "Your token has neither the role admin of this tenant nor operator, so this is not shown to you.",
  "operator-only": "This needs the role operator of the operators’ tenant.",
  "publisher-only": "Your token may not publish: it has neither the role publisher nor admin.",
  "token-expired": "The token has expired. Sign in with a new one.",
  unauthorized: "The server does not accept this token.",
  unreachable: "The server cannot be reached.",
  timeout: "The server did not answer in time.",
  "unknown-tenant": "There is no such tenant, or it is not yours.",
  "illegal-stage-move": "A stage goes on by one, and back by any.",
  "nothing-to-roll-back": "There is nothing to roll back: the stage was never changed.",
};

/** The server said no, or nothing. `code` as its problem details have it. */
export class Refusal extends Error {
  /** @param {number} status 0: no answer @param {string} code @param {string} [detail] */
  constructor(status, code, detail = "") {
    super(WORDS[code] ?? (detail ? `${detail} (${code})` : `The server answered ${status} ${code}.`));
    this.status = status;
    this.code = code;
  }

  /** Whether asking later may bring another answer; until then what was asked for may have been done or not. */
  get open() {
    return this.status === 0 || this.status === 429 || this.status >= 500;
  }
}

/** The server, as the holder of a token sees it. */
export class Api {
  #token;
  #ended;

  /** @param {string} token @param {(refusal: Refusal) => void} ended the token is not accepted (any more) */
  constructor(token, ended) {
    this.#token = token;
    this.#ended = ended;
  }

  /** The JSON of an answer. Throws Refusal. @param {string} path */
  get(path) {
    return this.send("GET", path);
  }

  /**
   * @param {string} method @param {string} path @param {object} [body]
   * @param {number} [version] what is changed must still have it (If-Match)
   */
  async send(method, path, body, version) {
    const headers = { authorization: `Bearer ${this.#token}` };
    if (body) headers["content-type"] = "application/json";
    if (version !== undefined) headers["if-match"] = `"${version}"`;
    const answer = await ask(path, { method, headers, body: body && JSON.stringify(body) });
    const found = await answer.json().catch(() => null);
    if (answer.ok && found) return found;
    const wrong = found?.errors?.map?.((/** @type {any} */ one) => `${one.path.replace(/^\$\.?/, "")} ${one.message}`.trim()).join("; ");
    const refusal = new Refusal(answer.status, found?.code ?? `status-${answer.status}`, wrong || found?.detail);
    if (answer.status === 401) this.#ended(refusal);
    throw refusal;
  }
}

/**
 * An answer to a request without a token; throws Refusal when there is none.
 * @param {string} path @param {RequestInit} [init]
 */
export async function ask(path, init) {
  try {
    return await fetch(path, { ...init, cache: "no-store", credentials: "omit", signal: AbortSignal.timeout(TIMEOUT_MS) });
  } catch (error) {
    throw new Refusal(0, error?.name === "TimeoutError" ? "timeout" : "unreachable");
  }
}

/** What an error says to people; nothing of errors that are not the server's. @param {unknown} error */
export function words(error) {
  if (error instanceof Refusal) return error.message;
  console.error(error);
  return "Something on this page went wrong.";
}
