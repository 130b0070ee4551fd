/**
 * Commands on the own inbox. `ids`: those, or "all".
 * @param {(type: string, fields?: object) => Promise<any>} request
 */
export function inboxOf(request) {
  /** @param {string} type */
  const mark = (type) => (/** @type {string[] | "all"} */ ids) => request(type, ids === "all" ? { all: true } : { ids });
  return {
    /** @param {{before?: string, limit?: number, states?: string[], kinds?: string[]}} [asked] */
    list: (asked) => request("inbox", asked),
    /** @param {{by_kind?: boolean}} [asked] */
    count: (asked) => request("counters", asked),
    read: mark("read"),
    seen: mark("seen"),
    unread: mark("unread"),
    archive: mark("archive"),
    delete: mark("delete"),
  };
}
