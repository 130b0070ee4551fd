// What an application is given.

/**
 * What `connection` tells.
 * @typedef {object} Status
 * @property {"off" | "connecting" | "live" | "waiting" | "stopped"} status
 * @property {"websocket" | "sse" | null} transport what carries publications now
 * @property {string} stage the tenant's migration stage; "": not known yet
 * @property {boolean} leader false: another tab holds the connection
 * @property {{code: number, reason: string} | null} stopped why it came to an end
 */
/**
 * One publication.
 * @typedef {object} Publication
 * @property {string} channel
 * @property {string} id
 * @property {string} event its type
 * @property {string} time RFC 3339
 * @property {any} data
 * @property {string} [cursor]
 * @property {boolean} [recovered]
 * @property {any} [inbox]
 */

export {};
