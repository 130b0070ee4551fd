import { eventSourceDriver } from "./transports/eventsource.js";
import { fetchDriver } from "./transports/fetch_stream.js";
import { websocketDriver } from "./transports/websocket.js";

/** @typedef {"websocket" | "fetch" | "eventsource"} Transport */
/**
 * @typedef {object} Options
 * @property {string} [url] of the server, with the path it is mounted at; the page's origin if missing
 * @property {import("./token.js").GetToken} [getToken] a JWT; without it the server's cookie counts. Throw
 *   UnauthorizedError where there will be none
 * @property {Iterable<string>} [channels] beside `user:<own>` and `all`
 * @property {string} [instance] names this page; random if missing
 * @property {"mobile" | "desktop" | "tablet" | "web"} [device]
 * @property {string} [deviceId]
 * @property {string} [app] the version of the application, for the census
 * @property {readonly Transport[]} [transports] which may be used: WebSocket comes first, then the first stream
 * @property {"subprotocol" | "ticket" | "query"} [auth] how the token reaches a WebSocket; an EventSource gets a ticket unless `query`
 * @property {boolean} [withCredentials] send cookies to another origin
 * @property {import("./storage.js").Store | null} [storage] where positions are kept; null: nowhere. Else the
 *   session's, so that each tab resumes where it was; with `share` the browser's
 * @property {string} [user] tells users apart in storage where there is no token
 * @property {(base: string, tab: string, sharer: import("./tabs.js").Sharer) => import("./tabs.js").Tabs | null} [share]
 *   `tabs(name)`: the pages that give the same name (the user's id) have one connection
 * @property {boolean} [standby] keep the stream, which the server mutes, beside a working WebSocket
 * @property {"late" | "all" | "none"} [backfill] which gaps are filled from history: those where nothing is lost (`late`), all, none
 * @property {boolean} [manualAck] the stored position is that of the last `ack()`
 * @property {Iterable<string>} [events] types to hear with the transport `eventsource`, beside those of `on()`
 * @property {number} [parityMs] between parity reports in stage `shadow`; 0: none
 * @property {(name: string, value: number, labels?: Record<string, string>) => void} [metrics]
 * @property {Partial<import("./timing.js").Timing>} [timing]
 * @property {import("./engine.js").Clock} [clock]
 * @property {typeof WebSocket} [WebSocket] in place of the global one; likewise
 * @property {typeof EventSource} [EventSource]
 * @property {typeof fetch} [fetch]
 */

/** The drivers there are for `options`, and why there is none for WebSocket. @param {Options} options */
export function drivers(options) {
  const allowed = options.transports ?? ["websocket", "fetch", "eventsource"];
  const Socket = options.WebSocket ?? globalThis.WebSocket;
  const Source = options.EventSource ?? globalThis.EventSource;
  /** @type {typeof fetch} */
  const fetcher = options.fetch ?? ((url, init) => globalThis.fetch(url, init));
  const socket = allowed.includes("websocket");
  const possible = { websocket: false, fetch: !!globalThis.ReadableStream, eventsource: !!Source };
  const stream = allowed.find((one) => possible[one]);
  return {
    ws: socket && Socket ? websocketDriver(Socket) : undefined,
    sse: stream === "fetch" ? fetchDriver(fetcher) : stream ? eventSourceDriver(Source) : undefined,
    headers: stream === "fetch",
    fetcher,
    unopened: !socket ? "chosen" : Socket ? "" : "unsupported",
  };
}

/** @param {string | undefined} url @returns {string} absolute, without a slash at the end */
export const baseOf = (url) => new URL(url ?? "/", globalThis.location?.href).href.replace(/\/*([?#].*)?$/, "");
