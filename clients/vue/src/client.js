/** @typedef {import("@dualcast/client").DualcastClient} DualcastClient */

/**
 * Whether it is a client rather than options of one; a page may have two copies of the class.
 * @param {object | null | undefined} one @returns {one is DualcastClient}
 */
export const isClient = (one) => !!one && "connect" in one && "request" in one;
