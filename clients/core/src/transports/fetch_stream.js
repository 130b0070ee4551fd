import { parser } from "../sse_parser.js";
import { CLOSE } from "../codes.js";

/** What a refused stream means in close codes (PROTO-16); any other status: come back later. */
const BY_STATUS = /** @type {Record<number, number>} */ ({
  400: CLOSE.BAD_REQUEST,
  401: CLOSE.UNAUTHORIZED,
  403: CLOSE.FORBIDDEN,
  404: CLOSE.BAD_REQUEST,
  413: CLOSE.BAD_REQUEST,
  422: CLOSE.BAD_REQUEST,
});

/**
 * A driver that reads an event stream with `fetch`: it can send headers, sees the status and every byte.
 * @param {typeof fetch} fetcher
 * @returns {import("./port.js").Driver}
 */
export function fetchDriver(fetcher) {
  return (request, on) => {
    const abort = new AbortController();

    /** @param {import("./port.js").Ended} end */
    function ended(end) {
      on.closed(end);
      abort.abort(); // the body of a refusal, too
    }

    read().catch((error) => ended({ code: 1006, reason: String(error?.message ?? error) }));

    async function read() {
      /** @type {Record<string, string>} */
      const headers = { accept: "text/event-stream", ...request.headers };
      // A header is bytes; an id is text.
      if (request.lastEventId) headers["last-event-id"] = String.fromCharCode(...new TextEncoder().encode(request.lastEventId));
      const answer = await fetcher(request.url, {
        headers,
        credentials: request.credentials ? "include" : "same-origin",
        cache: "no-store",
        signal: abort.signal,
      });
      if (answer.status !== 200) return ended(await refusal(answer));
      if (!/^text\/event-stream\s*(;|$)/i.test(answer.headers.get("content-type") ?? "") || !answer.body) {
        return ended({ code: 1006, reason: "content-type", status: 200, refused: true });
      }
      on.opened();
      const feed = parser(on, request.lastEventId);
      const decoder = new TextDecoder();
      const reader = answer.body.getReader();
      for (;;) {
        const { done, value } = await reader.read();
        if (done) return ended({ code: 1006, reason: "end" });
        on.heard();
        feed(decoder.decode(value, { stream: true }));
      }
    }

    return { close: () => abort.abort() };
  };
}

/** @param {Response} answer @returns {Promise<import("./port.js").Ended>} */
async function refusal(answer) {
  const status = answer.status;
  const wait = Number(answer.headers.get("retry-after"));
  // Only a problem is read: the body of anything else may never end.
  const problem = /json/.test(answer.headers.get("content-type") ?? "") && (await answer.json().catch(() => null));
  const reason = typeof problem?.code === "string" ? problem.code : `status-${status}`;
  const code = reason === "token-expired" ? CLOSE.TOKEN_EXPIRED : (BY_STATUS[status] ?? 1006);
  return { code, reason, status, retryMs: wait > 0 ? wait * 1_000 : undefined, refused: true, channels: problem?.channels };
}
