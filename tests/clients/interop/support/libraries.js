// Three libraries for event streams behind one face: `open(url, {bearer, take, comment, ended})`.
//
// `bearer`: sent as the header Authorization, or "". `take(type, data, id)`: an event. `comment()`: a comment line.
// `ended(status)`: the library gave up by itself; `status` as far as it says. Returns what closes it.

import { createRequire } from "node:module";

const require = createRequire(new URL("../../../../clients/package.json", import.meta.url));
/** A package of the workspace `clients`. @param {string} name */
export const load = (name) => import(require.resolve(name));

const { EventSource } = await load("eventsource");
const { createEventSource } = await load("eventsource-client");
// Written for pages: it takes its timers from `window` and asks `document` whether it is shown.
globalThis.window ??= globalThis;
globalThis.document ??= { hidden: false, addEventListener() {}, removeEventListener() {} };
const { fetchEventSource } = await load("@microsoft/fetch-event-source");

const TYPES = ["welcome", "connected", "notification", "heartbeat", "gap", "status", "drain"];
const authorization = (bearer) => (bearer ? { authorization: `Bearer ${bearer}` } : {});

/** What the README of the last one calls fatal: its user says what it is. */
export class Fatal extends Error {
  constructor(status) {
    super(`status ${status}`);
    this.status = status;
  }
}

export const LIBRARIES = {
  eventsource(url, { bearer = "", take, ended = () => {} }) {
    const send = (input, init) => fetch(input, { ...init, headers: { ...init.headers, ...authorization(bearer) } });
    const source = new EventSource(url, { fetch: send });
    for (const type of TYPES) source.addEventListener(type, (event) => take(type, event.data, event.lastEventId));
    source.onmessage = (event) => take("message", event.data, event.lastEventId);
    source.onerror = (event) => source.readyState === source.CLOSED && ended(event.code);
    return () => source.close();
  },

  "eventsource-client"(url, { bearer = "", take, comment, ended = () => {} }) {
    const source = createEventSource({
      url,
      headers: authorization(bearer),
      onMessage: ({ event, data, id }) => take(event ?? "message", data, id ?? ""),
      onComment: comment,
      onDisconnect: () => queueMicrotask(() => source.readyState === "closed" && ended(204)), // it closes after it has told
    });
    return () => source.close();
  },

  "fetch-event-source"(url, { bearer = "", take, comment, ended = () => {} }) {
    const stop = new AbortController();
    fetchEventSource(url, {
      headers: authorization(bearer),
      signal: stop.signal,
      openWhenHidden: true,
      async onopen(answer) {
        if (answer.headers.get("content-type")?.startsWith("text/event-stream")) return;
        throw new Fatal(answer.status);
      },
      // A comment line, and a block that only moves the position, are events without data for it.
      onmessage: ({ event, data, id }) => (event || data ? take(event || "message", data, id) : id || comment?.()),
      onclose() {
        throw new Error("ended by the server"); // so that it comes again
      },
      onerror(error) {
        if (error instanceof Fatal) throw error;
      },
    }).catch((error) => ended(error.status));
    return () => stop.abort();
  },
};
