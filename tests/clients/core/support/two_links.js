// A client whose WebSocket, EventSource, fetch and storage are the test's.

import { DualcastClient } from "../../../../clients/core/src/index.js";
import { until } from "./server.js";

export const TIMING = { settle: 20, answer: 40, spread: 1, probe: 20, probeCap: 40, first: 5, cap: 10, open: 400, greet: 400, prepare: 60 };

/** @type {DualcastClient[]} */
const clients = [];

/** Ends every client there is. */
export const disconnectAll = () => clients.splice(0).forEach((client) => client.disconnect());

/** `sockets` and `streams` in the order they were opened; `answers`: path → (path, init) → body or Response. */
export function twoLinks(options = {}) {
  const found = { sockets: [], streams: [], asked: [], answers: {}, heard: [] };
  class FakeSocket {
    constructor(url) {
      Object.assign(this, { url: new URL(url), sent: [], ended: false });
      found.sockets.push(this);
    }
    send(text) {
      const frame = JSON.parse(text);
      this.sent.push(frame);
      if (frame.type === "ping") queueMicrotask(() => this.frame({ type: "pong", cursor: this.pong }));
    }
    close() {
      this.ended = true;
    }
    frame(frame) {
      this.onmessage?.({ data: JSON.stringify(frame) });
    }
    welcome(more = {}) {
      this.onopen?.();
      this.frame({ type: "welcome", connection: "w", tenant: "t", user: "alice", stage: "fallback", channels: [], heartbeat_s: 25, ...more });
    }
    publication(number, more = {}) {
      this.frame({ type: "publication", cursor: `e-${number}`, ...publication(number), ...more });
    }
    end(code, reason = "") {
      this.onclose?.({ code, reason });
    }
  }
  class FakeSource extends EventTarget {
    static CLOSED = 2;
    readyState = 1;
    constructor(url) {
      super();
      Object.assign(this, { url: new URL(url), ended: false });
      found.streams.push(this);
    }
    close() {
      this.ended = true;
    }
    event(type, data, lastEventId = "") {
      this.dispatchEvent(Object.assign(new Event(type), { data: JSON.stringify(data), lastEventId }));
    }
    welcome(more = {}) {
      this.onopen?.();
      this.event("welcome", { type: "welcome", connection: "s", tenant: "t", user: "alice", stage: "fallback", channels: [], heartbeat_s: 25, ...more });
    }
    publication(number) {
      this.event("note", publication(number), `e-${number}`);
    }
    end() {
      this.readyState = 2;
      this.onerror?.();
    }
  }
  const fetcher = async (url, init) => {
    const path = url.replace("http://h", "");
    found.asked.push(path);
    const answer = found.answers[path.split("?")[0]];
    if (!answer) throw new TypeError("no network");
    const body = await answer(path, init);
    return body instanceof Response ? body : new Response(JSON.stringify(body));
  };
  const client = new DualcastClient({
    url: "http://h/",
    WebSocket: FakeSocket,
    EventSource: FakeSource,
    fetch: fetcher,
    transports: ["websocket", "eventsource"],
    events: ["note"],
    timing: TIMING,
    storage: null,
    ...options,
  });
  clients.push(client);
  client.on("publication", ({ data }) => found.heard.push(data));
  return Object.assign(found, {
    client,
    async socket(number = 1) {
      await until(() => found.sockets.length >= number, `socket ${number}`);
      return found.sockets[number - 1];
    },
    async stream(number = 1) {
      await until(() => found.streams.length >= number, `stream ${number}`);
      return found.streams[number - 1];
    },
    /** Both links live in stage shadow. */
    async shadow() {
      client.connect();
      const socket = await this.socket();
      socket.welcome({ stage: "shadow" });
      const stream = await this.stream();
      stream.welcome({ stage: "shadow" });
      await until(() => client.status.transport === "sse");
      return [socket, stream];
    },
    async live() {
      client.connect();
      const socket = await this.socket();
      socket.welcome();
      await until(() => client.status.status === "live");
      return socket;
    },
  });
}

const publication = (number) => ({ channel: "user:alice", id: `p${number}`, event: "note", time: "", data: number });
