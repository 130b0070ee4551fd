/**
 * What the build of the application says.
 * @typedef {object} Env
 * @property {string} [NEXT_PUBLIC_WS_URL] of the server, as ws://localhost:8000; the page's origin if missing
 * @property {string} [NODE_ENV] `development` shows demo credentials on test pages
 */

/**
 * Bundlers put values in place of these very words; without one there is no `process`, which is no error here.
 * @returns {Env}
 */
export function buildEnv() {
  /** @type {Env} */
  const found = {};
  try {
    // @ts-ignore: there are no types of Node here
    found.NEXT_PUBLIC_WS_URL = process.env.NEXT_PUBLIC_WS_URL;
  } catch {}
  try {
    // @ts-ignore: as above
    found.NODE_ENV = process.env.NODE_ENV;
  } catch {}
  return found;
}

/** @param {Env} [env] */
export const isDevelopment = (env = buildEnv()) => env.NODE_ENV === "development";

/**
 * The server's address for sockets and for calls, without a slash at the end.
 * @param {string | undefined} url ws, wss, http or https, with the path it is mounted at; missing: the page's origin
 * @returns {{ws: string, http: string}}
 * @throws {TypeError} for text that is no address
 */
export function serverBase(url = buildEnv().NEXT_PUBLIC_WS_URL) {
  const { href } = new URL(url || "/", globalThis.location?.href);
  const base = href.replace(/[?#].*$/, "").replace(/\/+$/, "");
  return { ws: base.replace(/^http/, "ws"), http: base.replace(/^ws/, "http") };
}
