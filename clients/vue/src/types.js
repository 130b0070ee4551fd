// Types of @dualcast/client as its declarations give them.

/** @typedef {import("@dualcast/client").DualcastClient} DualcastClient */
/** @typedef {NonNullable<ConstructorParameters<typeof import("@dualcast/client").DualcastClient>[0]>} Options */
/** @typedef {DualcastClient["status"]} Status */
/**
 * One publication, as a client tells it.
 * @typedef {object} Publication
 * @property {string} channel
 * @property {string} id
 * @property {string} event its type
 * @property {string} time RFC 3339
 * @property {any} data
 * @property {string} [cursor]
 * @property {boolean} [recovered] it is older than what came before
 * @property {any} [inbox] it is in the own inbox, whose counters these are
 */

export {};
