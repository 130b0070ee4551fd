import { isClient } from "../client.js";

/** @typedef {import("@dualcast/client").DualcastClient} DualcastClient */
/** @typedef {import("../types.js").Options} Options */
/** @typedef {{token?: string | null, isAuthenticated?: boolean}} Auth an auth store, as far as it matters here */
/** @typedef {{addNotification: (item: any) => void}} NotificationSink a notification store, likewise */
/**
 * @typedef {object} WebSocketConfig
 * @property {Auth | (() => Auth)} [auth] the app's auth store, or what gives it. Without: localStorage['auth-token']
 * @property {NotificationSink | (() => NotificationSink)} [notifications] the app's own; without: `useNotificationStore`
 * @property {string} [baseUrl] of the API; without: VITE_API_BASE_URL, then the page's own host
 * @property {"legacy" | "dualcast"} [transport] `legacy` (default): `/api/ws/notifications`; `dualcast`: the native protocol,
 *   with SSE where a WebSocket does not get through, and nothing lost in between
 * @property {Options | DualcastClient} [dualcast] for that
 * @property {boolean} [desktop] desktop notifications, once the user has permitted them; default true
 * @property {typeof WebSocket} [WebSocket] in place of the global one
 * @property {Pick<Console, "log" | "warn" | "error">} [log] in place of the console
 */

/** @type {WebSocketConfig} */
let given = {};

/**
 * Sets up `useWebSocketStore`; what it said before is forgotten. On a server, where modules outlive requests, give
 * stores as functions (`auth: () => useAuthStore()`).
 * @param {WebSocketConfig} config
 */
export function configureWebSocketStore(config) {
  given = config;
}

export const config = () => given;

/** @returns {Auth} */
export function auth() {
  const { auth } = given;
  return (typeof auth === "function" ? auth() : auth) ?? {};
}

/** Of the auth store, else as older pages keep it (S1.18). @returns {string} "" : none */
export function tokenOf() {
  const own = auth().token;
  if (own) return own;
  try {
    return globalThis.localStorage?.getItem("auth-token") ?? "";
  } catch {
    return ""; // a page without storage
  }
}

/** Whether there is something to connect with: a client of the app's may ask for its own. @returns {boolean} */
export function hasCredentials() {
  const { transport, dualcast } = given;
  return !!tokenOf() || (transport === "dualcast" && !!dualcast && (isClient(dualcast) || !!dualcast.getToken));
}

/** Whether there is somebody to connect for. @returns {boolean} */
export const isAuthenticated = () => auth().isAuthenticated ?? hasCredentials();

/** @returns {string} "" : the page's own */
function base() {
  // @ts-ignore Vite puts the variable in here, and only here: written otherwise it would not be found.
  return given.baseUrl ?? import.meta.env?.VITE_API_BASE_URL ?? "";
}

/** @returns {{secure: boolean, host: string}} host with the path the API is mounted at, no slash at the end */
function place() {
  const page = globalThis.location;
  const found = base();
  const [, scheme = "", rest = ""] = /^(?:(https?|wss?):\/\/|\/\/)?(.*)$/i.exec(found) ?? [];
  const own = !scheme && !found.startsWith("//") && (rest === "" || rest.startsWith("/"));
  const host = (own ? (page?.host ?? "") : "") + rest;
  return { secure: page?.protocol === "https:" || /^(https|wss)$/i.test(scheme), host: host.replace(/\/+$/, "") };
}

/** The address of the older socket (S1.19, S1.41). @param {string} token @returns {string} */
export function socketUrl(token) {
  const { secure, host } = place();
  return `${secure ? "wss:" : "ws:"}//${host}/api/ws/notifications?token=${encodeURIComponent(token)}`;
}

/** The address of the server for a DualcastClient. @returns {string} */
export function serverUrl() {
  const { secure, host } = place();
  return `${secure ? "https:" : "http:"}//${host}`;
}
