// What chat modules exchange (legacy-wire.md sections 6.1 to 6.3).

/**
 * @typedef {object} ChatMessage
 * @property {string} id
 * @property {string} conversation_id
 * @property {string | Record<string, any>} content
 * @property {string} message_type `text`, …
 * @property {string} sender_id "" : this user
 * @property {string} timestamp RFC 3339
 * @property {"sending" | "sent" | "failed"} [status] of one's own
 * @property {readonly string[]} read_by users
 */
/**
 * @typedef {object} ChatState
 * @property {string} conversationId
 * @property {number} session of the page: what one user has seen is not for the next
 * @property {readonly ChatMessage[]} messages the oldest first
 * @property {Readonly<Record<string, number>>} typing user → until when that counts, ms
 */
/**
 * @typedef {object} OutgoingMessage
 * @property {string | Record<string, any>} content
 * @property {string} [message_type]
 * @property {string} [id]
 * @property {string} [reply_to_message_id]
 * @property {string} [exclude_connection_id] which needs no copy; without it none of the sender's devices gets one
 */
/**
 * @typedef {(
 *   | {type: "open", conversationId: string, session: number}
 *   | {type: "frame", message: import("../client/types.js").Message, now: number}
 *   | {type: "sending", message: OutgoingMessage & {id: string}, now: number}
 *   | {type: "sent" | "failed", id: string}
 *   | {type: "history", messages: readonly Record<string, any>[]}
 *   | {type: "tick", now: number}
 * )} ChatAction
 */

export const MAX_MESSAGES = 500;
export const MAX_TYPING = 50;
export const MAX_READERS = 200;
/** For so long somebody counts as typing who does not say that it is over; ms. */
export const TYPING_MS = 8_000;
