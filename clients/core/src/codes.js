// Close codes of the native protocol (PROTO-30). A test holds this table against the server's own.

/** Name → code. */
export const CLOSE = Object.freeze({
  BAD_REQUEST: 4000,
  UNAUTHORIZED: 4001,
  PROTOCOL_ERROR: 4002,
  FORBIDDEN: 4003,
  REVOKED: 4004,
  FRAME_TOO_BIG: 4005,
  REPLACED: 4009,
  STAGE: 4010,
  DRAIN: 4100,
  TRY_LATER: 4101,
  RATE_LIMITED: 4102,
  INTERNAL: 4103,
  LAGGING: 4200,
  TOKEN_EXPIRED: 4201,
  STALE: 4202,
});

/** What a client does by hundreds of codes; after any other it is `later`. */
const RANGES = /** @type {Record<number, "stop" | "later" | "now">} */ ({ 40: "stop", 41: "later", 42: "now" });

/**
 * What follows a close with `code`: `stop` (only the user or the page can help), `later` (reconnect after a
 * delay) or `now` (reconnect with the cursor).
 * @param {number} code
 * @returns {"stop" | "later" | "now"}
 */
export function action(code) {
  return RANGES[Math.floor(code / 100)] ?? "later";
}

/**
 * Whether a dualcast server chose this code: then its WebSocket gets through, whatever it said.
 * @param {number} code
 */
export const isOurs = (code) => Math.floor(code / 100) in RANGES;

/** Events of a stream, and frames of a socket, that are no publication (PROTO-23). */
export const SIGNALS = Object.freeze([
  "welcome",
  "state",
  "unsubscribed",
  "gap",
  "status",
  "auth_expiring",
  "auth_expired",
  "stage",
  "migrate",
  "drain",
  "bye",
]);
