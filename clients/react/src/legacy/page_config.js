import { Emitter } from "@dualcast/client/src/emitter.js";

/**
 * What a page wants of its socket.
 * @typedef {object} PageConfig
 * @property {boolean} enabled false: no attempt is ever made
 * @property {boolean} requireAuth no attempt without a token
 * @property {boolean} autoConnect false: only when the page calls `connect()`
 * @property {string | null} connectionType `chat`, `admin`, …: for the page to tell; all use the same socket
 * @property {readonly string[]} features
 */

const CHAT = ["messaging", "typing_indicator", "file_upload"];

/** Of every page that is not listed. @type {PageConfig} */
export const NO_SOCKET = Object.freeze({
  enabled: false,
  requireAuth: false,
  autoConnect: false,
  connectionType: null,
  features: Object.freeze([]),
});

/** @param {Partial<PageConfig>} given @returns {PageConfig} */
const entry = (given) =>
  Object.freeze({
    enabled: true,
    requireAuth: true,
    autoConnect: true,
    connectionType: null,
    ...given,
    features: Object.freeze([...(given.features ?? [])]),
  });

/**
 * Path → configuration. A path means also those below it; the longest counts. A part that begins with `:` stands for any.
 * @type {Record<string, PageConfig>}
 */
export const PAGE_WEBSOCKET_CONFIG = {
  "/chat": entry({ connectionType: "chat", features: [...CHAT, "voice_note"] }),
  "/doctor/chat": entry({ connectionType: "chat", features: CHAT }),
  "/customer/chat": entry({ connectionType: "chat", features: CHAT }),
  "/consultant/chat": entry({ connectionType: "chat", features: CHAT }),
  "/admin": entry({ connectionType: "admin", features: ["system_notifications", "user_monitoring", "real_time_stats"] }),
  "/test-websocket": entry({ autoConnect: false, connectionType: "test", features: [...CHAT, "system_notifications"] }),
  "/login": NO_SOCKET,
};

const changes = new Emitter();

/** Listens for pages that are defined later, with the code of a page. @param {() => void} listener @returns {() => void} takes it off */
export const onPagesDefined = (listener) => changes.on("defined", listener);

/**
 * Adds pages, or defines them anew. What an entry leaves out: `enabled`, `requireAuth`, `autoConnect` true, no features.
 * @param {Record<string, Partial<PageConfig>>} pages by path
 * @param {Record<string, PageConfig>} [onto]
 */
export function definePages(pages, onto = PAGE_WEBSOCKET_CONFIG) {
  for (const [path, given] of Object.entries(pages)) {
    if (!path.startsWith("/")) throw new TypeError(`the path of a page begins with a slash: ${path}`);
    onto[path] = entry(given);
  }
  changes.emit("defined");
}

const LOGIN = new Set(["login", "log-in", "signin", "sign-in", "sign_in"]);
const parts = (/** @type {string} */ path) => path.split("/").filter(Boolean);

/** A page on which nobody is signed in yet, whatever is configured for it. @param {string} path */
export const isLoginPage = (path) => parts(path).some((part) => LOGIN.has(part.toLowerCase()));

/**
 * The entry for a path: whether it is a login page decides before it.
 * @param {string} path of the page @param {Record<string, PageConfig>} [pages]
 * @returns {{key: string, config: PageConfig}} `key`: the path of the entry; "" : there is none
 */
export function findPage(path, pages = PAGE_WEBSOCKET_CONFIG) {
  const at = parts(path);
  const fits = (/** @type {string} */ key) => {
    const wanted = parts(key);
    return wanted.length <= at.length && wanted.every((part, number) => part.startsWith(":") || part === at[number]);
  };
  const found = Object.keys(pages).filter(fits);
  const exact = (/** @type {string} */ key) => parts(key).filter((part) => !part.startsWith(":")).length;
  found.sort((one, other) => parts(other).length - parts(one).length || exact(other) - exact(one));
  const key = found[0] ?? "";
  return { key, config: pages[key] ?? NO_SOCKET };
}
