/** @param {string[] | "all"} ids */
const which = (ids) => (ids === "all" ? { all: true } : { ids });

/**
 * Commands on the own inbox. `ids`: those, or "all".
 * @param {(type: string, fields?: object) => Promise<any>} request
 */
export const inboxOf = (request) => ({
  /** @param {{before?: string, limit?: number, states?: string[], kinds?: string[]}} [asked] */
  list: (asked) => request("inbox", asked),
  /** @param {{by_kind?: boolean}} [asked] */
  count: (asked) => request("counters", asked),
  /** @param {string[] | "all"} ids */
  read: (ids) => request("read", which(ids)),
  /** @param {string[] | "all"} ids */
  seen: (ids) => request("seen", which(ids)),
  /** @param {string[] | "all"} ids */
  unread: (ids) => request("unread", which(ids)),
  /** @param {string[] | "all"} ids */
  archive: (ids) => request("archive", which(ids)),
  /** @param {string[] | "all"} ids */
  delete: (ids) => request("delete", which(ids)),
});
