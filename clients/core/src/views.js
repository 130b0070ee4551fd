// Which streams of a dualcast server a URL names, and as what the native protocol has them (PROTO-66).

/** The server's own stream, and those of pages that are older than it (legacy wire contracts, section 3). */
const PATHS = /^(.*)\/(?:v1\/stream|api\/(?:(notifications)\/stream|stream\/(?:(task)s|(batch)es)\/([^/]+)))$/;

/**
 * @typedef {object} Place
 * @property {string} base of the server, without a slash at the end
 * @property {string} view "": the protocol's own events
 */

/** @param {URL} url @returns {Place | null} null: no stream of dualcast */
export function locate({ origin, pathname }) {
  const [, prefix, notifications, task, batch, id = ""] = PATHS.exec(pathname) ?? [];
  if (prefix === undefined) return null;
  try {
    const base = origin + prefix.replace(/\/+$/, "");
    return { base, view: notifications ?? (id && `${task ?? batch}:${decodeURIComponent(id)}`) };
  } catch {
    return null; // not UTF-8
  }
}
