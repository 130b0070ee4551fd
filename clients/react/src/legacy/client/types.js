// What the modules of the older contracts exchange.

/** @typedef {typeof CONNECTION_STATUS[keyof typeof CONNECTION_STATUS]} ConnectionStatus */
/**
 * Why there is no connection. "": there is one, or one is being made. `disabled`, `login`, `unauthenticated`: the
 * page does not want one. `manual`: `disconnect()` was called, or the page waits for `connect()`. `closed`: the
 * server said that nothing more comes (1000). `refused`: the token will not do. `replaced`: a newer connection of
 * the user took its place. `exhausted`: no attempt is left. `address`: no WebSocket can be opened to that address.
 * @typedef {"" | "disabled" | "login" | "unauthenticated" | "manual" | "closed" | "refused" | "replaced" | "exhausted" | "address"} Reason
 */
/**
 * A frame of any of the older contracts in one shape. A frame names itself by `event_type`, `action` or `type`; all
 * three are set here. Other keys of the frame are kept as they came.
 * @typedef {{event_type: string, action: string, type: string, data: any, timestamp?: any, conversation_id?: string,
 *   [key: string]: any}} Message
 */
/**
 * What components are shown. A new object whenever something in it changes.
 * @typedef {object} Snapshot
 * @property {boolean} isConnected the server has greeted this connection, and it lives
 * @property {ConnectionStatus} connectionStatus
 * @property {Message | null} lastMessage
 * @property {Reason} reason
 */
/**
 * In ms.
 * @typedef {object} DeviceConfig
 * @property {number} connectionTimeout until the server has said something
 * @property {number} heartbeatInterval
 * @property {number} reconnectInterval
 * @property {number} maxReconnectDelay
 */
/** @typedef {{code: number, reason: string}} Closed */
/** @typedef {import("@dualcast/client/src/engine.js").Clock} Clock */

export const CONNECTION_STATUS = /** @type {const} */ ({
  DISCONNECTED: "disconnected",
  CONNECTING: "connecting",
  CONNECTED: "connected",
  RECONNECTING: "reconnecting",
  ERROR: "error",
});

/** The names that clients of `conversations` dispatch (legacy-wire.md section 6.8). */
export const EVENTS = /** @type {const} */ ([
  "new_message",
  "presence_update",
  "typing_update",
  "conversation_update",
  "system_notification",
]);

/** @type {Readonly<Snapshot>} where nothing has happened yet, and on a server */
export const IDLE = Object.freeze({ isConnected: false, connectionStatus: "disconnected", lastMessage: null, reason: "" });
