// The conformance vectors that the server's encoders are held to, read by the client: what the server writes is what an
// application is told, over either transport and however the bytes are cut.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { after, test } from "node:test";
import { CLOSE, SIGNALS, action } from "../../../clients/core/src/codes.js";
import { DualcastClient } from "../../../clients/core/src/index.js";
import { until } from "./support/server.js";

const vectors = (name) => JSON.parse(readFileSync(new URL(`../../conformance/vectors/${name}.json`, import.meta.url), "utf8")).vectors;
const HELLO = { connection: "c", tenant: "default", user: "alice", stage: "fallback", channels: ["user:alice", "all"], heartbeat_s: 25 };
/** What a client makes of these types before it passes them on, and what it does then, is not of their form. */
const HEEDED = { gap: ["backfill"] };
const clients = [];
after(() => clients.forEach((one) => one.disconnect()));

/**
 * What a client is told of `type` by a connection that says this after its welcome. `text`: of a socket; else `bytes` of a stream.
 * Only the first connection says it: after some types the client has gone on to the next one before anybody looks.
 */
async function told(type, { text, bytes }) {
  const found = [];
  let say;
  let connections = 0;
  class Socket {
    constructor() {
      if (connections++) return;
      queueMicrotask(() => this.onopen());
      say = (data) => this.onmessage({ data });
      queueMicrotask(() => {
        say(JSON.stringify({ type: "welcome", ...HELLO }));
        client.on(type, (detail) => found.push(detail));
        say(text);
      });
    }
    send() {}
    close() {}
  }
  const fetcher = async (url) => {
    if (!String(url).includes("/v1/stream")) return new Response("{}", { status: 404 });
    if (connections++) return new Promise(() => {});
    const body = new ReadableStream({
      async start(controller) {
        controller.enqueue(new TextEncoder().encode(`event: welcome\ndata: ${JSON.stringify(HELLO)}\n\n`));
        await new Promise((resolve) => setTimeout(resolve));
        client.on(type, (detail) => found.push(detail));
        for (const byte of new TextEncoder().encode(bytes)) controller.enqueue(Uint8Array.of(byte));
      },
    });
    return new Response(body, { headers: { "content-type": "text/event-stream" } });
  };
  const transports = [text === undefined ? "fetch" : "websocket"];
  const options = { url: "https://push.example", transports, storage: null, backfill: "none", WebSocket: Socket, fetch: fetcher };
  const client = new DualcastClient({ ...options, getToken: async () => "t", channels: [] });
  clients.push(client);
  client.connect();
  await until(() => found.length > 0);
  client.disconnect();
  assert.equal(found.length, 1, `${type}: ${JSON.stringify(found)}`);
  const detail = { ...found[0] };
  for (const name of HEEDED[type] ?? []) delete detail[name];
  return detail;
}

test("publications are told as they were published, over a socket and over a stream", async () => {
  for (const { name, sse, websocket, websocket_recovered } of vectors("publications")) {
    const due = JSON.parse(websocket);
    assert.deepEqual(await told("publication", { text: websocket }), due, name);
    assert.deepEqual(await told("publication", { bytes: sse }), due, name);
    assert.deepEqual(await told("publication", { text: websocket_recovered }), JSON.parse(websocket_recovered), name);
  }
});

test("signals are told as the server says them, over a socket and over a stream", async () => {
  const seen = new Set();
  for (const { name, frame, websocket, sse, sse_cursor } of vectors("signals")) {
    if (!SIGNALS.includes(frame.type)) continue;
    const due = JSON.parse(websocket);
    assert.deepEqual(await told(frame.type, { text: websocket }), due, name);
    if (sse) {
      const { cursor, ...rest } = await told(frame.type, { bytes: sse });
      const { cursor: said, ...due_rest } = due;
      assert.deepEqual(rest, due_rest, name);
      assert.equal(cursor, sse_cursor ?? said, name);
    }
    seen.add(frame.type);
  }
  assert.deepEqual([...seen].sort(), [...SIGNALS].sort());
});

test("close codes mean to the client what they mean to the server", () => {
  const table = vectors("close_codes");
  const named = table.filter(({ name }) => /^[A-Z_]+$/.test(name)); // the others are codes of nobody or of RFC 6455
  assert.deepEqual(Object.fromEntries(named.map(({ name, code }) => [name, code])), CLOSE);
  for (const { name, code, action: due } of table) assert.equal(action(code), due, name);
});
