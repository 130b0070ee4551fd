// What a transport is to the client. A driver opens one connection and says what happens; it never reconnects.

/**
 * @typedef {object} Request
 * @property {string} url
 * @property {string[]} [protocols] of a WebSocket
 * @property {Record<string, string>} [headers] of a fetch
 * @property {string} [lastEventId] of a stream: where it goes on
 * @property {boolean} [credentials] send cookies to another origin
 * @property {Iterable<string>} [events] names to listen for, where names have to be known
 */
/**
 * Why a connection is over. `code`: a close code; 1006 where there was none.
 * @typedef {object} Ended
 * @property {number} code
 * @property {string} reason
 * @property {number} [status] of an HTTP answer
 * @property {number} [retryMs] the server asks to wait so long
 * @property {string[]} [channels] it was refused because of these
 * @property {boolean} [refused] an `EventSource` would give up now
 */
/**
 * Told by a driver. After `closed`, and after `close()` of the connection, nobody listens any more.
 * @typedef {object} Handlers
 * @property {() => void} opened
 * @property {(text: string) => void} text a text frame of a socket
 * @property {(event: import("../sse_parser.js").StreamEvent) => void} event of a stream
 * @property {(id: string) => void} position
 * @property {(ms: number) => void} retry
 * @property {() => unknown} heard something arrived, were it a comment
 * @property {(end: Ended) => void} closed
 */
/**
 * @typedef {object} Connection
 * @property {(text: string) => void} [send]
 * @property {(name: string) => void} [listen] one more event name
 * @property {boolean} [deaf] it does not hear heartbeats: its silence says nothing
 * @property {() => void} close
 */
/** @typedef {(request: Request, on: Handlers) => Connection} Driver May throw: then it is as if it had closed. */

export {};
