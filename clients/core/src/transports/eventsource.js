import { SIGNALS } from "../codes.js";

/**
 * A driver over the browser's `EventSource`, for where a fetch cannot be read as it comes in. It sees neither
 * status nor comments, and hears only names it listens for. Its own reconnecting is not used: it would repeat an
 * old URL.
 * @param {typeof EventSource} Source
 * @returns {import("./port.js").Driver}
 */
export function eventSourceDriver(Source) {
  return (request, on) => {
    const source = new Source(request.url, { withCredentials: request.credentials ?? false });
    /** @type {Set<string>} */
    const names = new Set();

    /** @param {string} name */
    function listen(name) {
      if (names.has(name) || name === "error" || name === "open") return;
      names.add(name);
      source.addEventListener(name, (event) => {
        on.heard();
        on.event({ type: name, data: String(event.data), id: event.lastEventId });
      });
    }

    for (const name of ["message", ...SIGNALS, ...(request.events ?? [])]) listen(name);
    source.onopen = () => on.opened();
    source.onerror = () => {
      const refused = source.readyState === Source.CLOSED;
      source.close();
      on.closed({ code: 1006, reason: refused ? "refused" : "closed", refused });
    };
    return { deaf: true, listen, close: () => source.close() };
  };
}
