// DualcastEventSource on the URLs of older pages: which they are, what a view's frames become, and what happens where
// there is no view. Connections are the test's own; the last test has a server.

import assert from "node:assert/strict";
import { after, test } from "node:test";
import { DualcastEventSource } from "../../../clients/core/src/event_source.js";
import { Server, WebSocket, token, until } from "./support/server.js";

const HOST = "https://app.example";
const NOTES = `${HOST}/api/notifications/stream?token=t`;
const sources = [];
after(() => sources.forEach((one) => one.close()));

/** The network of one source: what it opened, in order, and what the other end says. */
class Network {
  sockets = [];
  streams = [];
  /** url → status of a refusal */
  refuse = () => 0;

  constructor() {
    const network = this;
    this.WebSocket = class {
      constructor(url) {
        Object.assign(this, { url, closed: false });
        network.sockets.push(this);
        queueMicrotask(() => {
          const code = network.refuse(url);
          code ? this.onclose?.({ code, reason: "refused" }) : this.onopen?.();
        });
      }
      send(text) {
        if (JSON.parse(text).type === "ping") queueMicrotask(() => this.say("pong"));
      }
      close() {
        this.closed = true;
      }
      say(type, fields = {}) {
        this.onmessage?.({ data: JSON.stringify({ type, ...fields }) });
      }
      drop(code = 1006) {
        this.onclose?.({ code, reason: "" });
      }
    };
    this.fetch = async (url, { signal } = {}) => {
      const status = network.refuse(String(url));
      const stream = { url: String(url), closed: false };
      network.streams.push(stream);
      if (status) return new Response("no", { status });
      const body = new ReadableStream({ start: (controller) => (stream.controller = controller) });
      signal?.addEventListener("abort", () => (stream.closed = true));
      stream.write = (text) => stream.controller.enqueue(new TextEncoder().encode(text));
      stream.say = (type, fields = {}, id = "") => stream.write(`${id && `id: ${id}\n`}event: ${type}\ndata: ${JSON.stringify(fields)}\n\n`);
      stream.drop = () => stream.controller.close();
      return new Response(body, { headers: { "content-type": "text/event-stream" } });
    };
  }

  source(url, options = {}) {
    const timing = { first: 5, cap: 10, spread: 0, settle: 20, probe: 20, probeCap: 40, ...options.timing };
    const one = new DualcastEventSource(url, { WebSocket: this.WebSocket, fetch: this.fetch, ...options, timing });
    sources.push(one);
    one.told = [];
    for (const type of ["open", "error"]) one.addEventListener(type, () => one.told.push(`${type} ${one.readyState}`));
    for (const type of ["connected", "notification", "progress", "completed", "heartbeat", "gap", "welcome", "status", "stage", "message", "view", "publication"]) {
      one.addEventListener(type, ({ data, lastEventId }) => one.told.push([type, data, lastEventId]));
    }
    return one;
  }
}

const event = (name, data) => ({ event: name, data });
const welcome = (cursor, more = {}) => ({ stage: "fallback", heartbeat_s: 25, cursor, view: [event("connected", "{}")], ...more });
const note = (number) => ({ id: `p${number}`, cursor: `e-${number}`, events: [event("notification", `{"n":${number}.0}`)] });
/** On a stream the cursor is the block's id. */
const onStream = ({ cursor, ...fields }) => ["publication", fields, cursor];
const settle = (ms = 30) => new Promise((done) => setTimeout(done, ms));

const URLS = {
  "/api/notifications/stream?token=a%2Bb&channel=x&device=toaster": ["", "view=notifications&token=a%2Bb"],
  "/api/notifications/stream": ["", "view=notifications"],
  "/behind/a/proxy/api/notifications/stream?token=t#x": ["/behind/a/proxy", "view=notifications&token=t"],
  "/app/api/stream/tasks/T%201?token=t": ["/app", "view=task%3AT+1&token=t"],
  "/api/stream/batches/%E4%BD%A0?token=t": ["", "view=batch%3A%E4%BD%A0&token=t"],
  "/api/stream/tasks/a%2Fb%3Fc": ["", "view=task%3Aa%2Fb%3Fc"],
  "/app/v1/stream?token=t&channels=topic:x&view=notifications": ["/app", "token=t&channels=topic%3Ax&view=notifications"],
};
for (const [url, [base, query]] of Object.entries(URLS)) {
  test(`a stream of dualcast: ${url}`, async () => {
    const network = new Network();
    const one = network.source(HOST + url, { instance: "i" });
    await until(() => network.sockets.length === 1);
    assert.equal(network.sockets[0].url, `wss://app.example${base}/v1/socket?${query}&instance=i`);
    assert.equal(one.url, HOST + url);
    network.sockets[0].drop(4010);
    await until(() => network.streams.length === 1);
    assert.equal(network.streams[0].url, `${HOST}${base}/v1/stream?${query}&instance=i`);
    one.close();
  });
}

test("a stream of anybody else is read as it is", async () => {
  const others = ["/api/notifications/streams", "/api/notifications/stream/", "/api/stream/tasks/", "/api/stream/task/1", "/api/stream/tasks/1/2", "/api/stream/tasks/%FF", "/xapi/notifications/stream", "/v1/stream2"];
  for (const path of others) {
    const network = new Network();
    const one = network.source(HOST + path + "?token=t#x");
    await until(() => network.streams.length === 1);
    assert.equal(network.streams[0].url, `${HOST}${path}?token=t`);
    network.streams[0].write("data:1\n\n");
    await until(() => one.told.length === 2);
    assert.deepEqual(one.told, ["open 1", ["message", "1", ""]]);
    assert.equal(network.sockets.length, 0, path);
    one.close();
  }
});

test("a view over a WebSocket: what the stream says, and nothing of the protocol", async () => {
  const metrics = [];
  const network = new Network();
  const one = network.source(NOTES, { metrics: (name) => metrics.push(name) });
  await until(() => network.sockets[0]);
  const [socket] = network.sockets;
  await settle(1);
  socket.say("welcome", welcome("e-0", { view: [event("connected", '{"channel":"x"}'), event("progress", "{}")] }));
  socket.say("status", { bus: "away" });
  socket.say("gap", { channel: "all", reason: "late", cursor: "e-1" });
  socket.say("view", { events: [event("heartbeat", '{"ts": 1.50}')] });
  socket.say("view", { ...note(2), events: [event("progress", '{"a":1.0}'), event("completed", '"\u2028"')] });
  socket.say("view", { ...note(2), events: [event("progress", "again")] });
  socket.say("view", { events: [event("heartbeat", "{}")] });
  assert.deepEqual(one.told, [
    "open 1",
    ["connected", '{"channel":"x"}', ""],
    ["progress", "{}", ""],
    ["heartbeat", '{"ts": 1.50}', ""],
    ["progress", '{"a":1.0}', ""],
    ["completed", '"\u2028"', "e-2"],
    ["heartbeat", "{}", "e-2"],
  ]);
  assert.ok(metrics.includes("gaps"));
  one.close();
});

test("a connection that breaks is told; the next goes on, and says what it was told of the state", async () => {
  const network = new Network();
  const one = network.source(`${HOST}/api/stream/tasks/T?token=t`);
  await until(() => network.sockets[0]);
  await settle(1);
  network.sockets[0].say("welcome", welcome("e-0", { told: "5.17" }));
  network.sockets[0].say("view", note(1));
  network.sockets[0].drop();
  await until(() => network.sockets[1]);
  const asked = new URL(network.sockets[1].url).searchParams;
  assert.deepEqual([asked.get("cursor"), asked.get("told"), asked.get("view")], ["e-1", "5.17", "task:T"]);
  await settle(1);
  network.sockets[1].say("welcome", welcome("e-1"));
  network.sockets[1].say("view", note(1));
  assert.deepEqual(one.told, ["open 1", ["connected", "{}", ""], ["notification", '{"n":1.0}', "e-1"], "error 0", "open 1", ["connected", "{}", "e-1"]]);
  one.close();
});

/** Both connections in stage `shadow`. */
async function shadowed(network, stage = "shadow") {
  const one = network.source(NOTES);
  await until(() => network.sockets[0]);
  network.sockets[0].drop(4010);
  await until(() => network.streams[0]?.say);
  const [stream] = network.streams;
  stream.say("welcome", welcome("e-0", { stage: "sse" }), "e-0");
  await until(() => one.readyState === 1);
  stream.say("stage", { stage });
  await until(() => network.sockets[1]);
  await settle(1);
  const socket = network.sockets[1];
  socket.say("welcome", welcome("e-0", { stage }));
  await settle(30);
  return { one, stream, socket };
}
const titles = (one) => one.told.filter(([type]) => type === "notification").map(([, data]) => JSON.parse(data).n);

test("in stage shadow the stream is the truth", async () => {
  const network = new Network();
  const { one, stream, socket } = await shadowed(network);
  socket.say("view", note(1));
  socket.say("view", { events: [event("heartbeat", "{}")] });
  await settle();
  assert.deepEqual(titles(one), []);
  stream.say(...onStream(note(1)));
  stream.say(...onStream(note(2)));
  stream.say(...onStream({ events: [event("heartbeat", "{}")] }));
  socket.say("view", note(2));
  await until(() => one.told.some(([type]) => type === "heartbeat"));
  assert.deepEqual(one.told, ["open 1", ["connected", "{}", ""], ["notification", '{"n":1.0}', "e-1"], ["notification", '{"n":2.0}', "e-2"], ["heartbeat", "{}", "e-2"]]);
  one.close();
});

for (const how of ["stage", "end", "many"]) {
  test(`what only the socket has brought in stage shadow is not lost: ${how}`, async () => {
    const network = new Network();
    const { one, stream, socket } = await shadowed(network);
    const due = how === "many" ? 1001 : 3;
    for (let number = 1; number <= due; number += 1) socket.say("view", note(number));
    socket.say("pong", { cursor: `e-${due}` });
    if (how !== "many") assert.deepEqual(titles(one), []);
    if (how === "stage") socket.say("stage", { stage: "fallback" });
    if (how === "end") stream.drop();
    await until(() => titles(one).length === due, how);
    if (how === "stage") await until(() => stream.closed, "the stream is given up");
    socket.say("view", note(due + 1));
    await settle();
    if (how !== "many") assert.deepEqual(titles(one), [1, 2, 3, 4]);
    assert.equal(new Set(titles(one)).size, titles(one).length);
    one.close();
  });
}

test("a hole that only the socket has in stage shadow is told when the stream ends, unless the stream has passed it", async () => {
  const network = new Network();
  const one = network.source("https://h/v1/stream?token=a.b.c");
  const gaps = [];
  one.addEventListener("gap", ({ data }) => gaps.push(JSON.parse(data).channel));
  await settle(30);
  network.sockets[0].say("welcome", welcome("e-0", { stage: "shadow" }));
  await until(() => network.streams[0]?.say);
  network.streams[0].say("welcome", welcome("e-0", { stage: "shadow" }), "e-0");
  await settle(30);
  const note = { channel: "user:alice", id: "p1", event: "note", data: 1 };
  network.sockets[0].say("gap", { channel: "topic:a" });
  network.sockets[0].say("publication", { cursor: "e-1", ...note });
  network.streams[0].say("note", note, "e-1");
  await settle(30);
  network.sockets[0].say("gap", { channel: "topic:b" });
  network.streams[0].drop();
  await settle(30);
  assert.deepEqual(gaps, ["topic:b"]);
  one.close();
});

test("a server without the view has the stream itself", async () => {
  for (const refusal of [(url) => url.includes("/v1/") && 404, (url) => url.includes("/v1/socket") && 4000]) {
    const network = new Network();
    network.refuse = (url) => (url.startsWith("wss:") && refusal(url) === 404 ? 1006 : refusal(url) || 0);
    const metrics = [];
    const one = network.source(NOTES, { metrics: (name) => metrics.push(name) });
    await until(() => network.streams.at(-1)?.say);
    assert.equal(network.streams.at(-1).url, NOTES);
    network.streams.at(-1).write("event: notification\nid: 7\ndata: {}\n\n");
    await until(() => one.told.length === 2);
    assert.deepEqual(one.told, ["open 1", ["notification", "{}", "7"]]);
    assert.ok(metrics.includes("no_view"));
    assert.equal(one.transport, "sse");
    one.close();
  }
});

test("a WebSocket that does not get through is no error to the page", async () => {
  const network = new Network();
  network.refuse = (url) => (url.startsWith("wss:") ? 1006 : 0);
  const one = network.source(NOTES);
  one.onerror = () => one.close(); // as many a page does
  await until(() => network.streams[0]?.say);
  assert.equal(new URL(network.streams[0].url).searchParams.get("fallback_reason"), "refused");
  network.streams[0].say("welcome", welcome("e-0"), "e-0");
  await until(() => one.told.length === 2);
  await until(() => network.sockets.length >= 4, "it is tried again beside the stream");
  assert.deepEqual(one.told, ["open 1", ["connected", "{}", ""]]);
  one.close();
});

test("where the stream itself is refused, too, that is the end: one error", async () => {
  const network = new Network();
  network.refuse = (url) => (url.startsWith("wss:") ? 4001 : 401);
  const one = network.source(NOTES);
  await until(() => one.readyState === 2);
  await settle();
  assert.deepEqual(one.told, ["error 2"]);
  assert.deepEqual(network.streams.map(({ url }) => url), [NOTES]);
});

test("once it was open a refusal is final, and a proxy without its server is a broken network", async () => {
  const network = new Network();
  const one = network.source(NOTES, { transports: ["fetch"] });
  await until(() => network.streams[0]);
  network.streams[0].say("welcome", welcome("e-0"), "e-0");
  await until(() => one.readyState === 1);
  network.refuse = () => 502;
  network.streams[0].drop();
  await until(() => network.streams.length >= 3);
  assert.equal(one.readyState, 0);
  network.refuse = () => 403;
  await until(() => one.readyState === 2);
  assert.deepEqual([...new Set(one.told)], ["open 1", one.told[1], "error 0", "error 2"]);
  assert.equal(one.told.filter((told) => told === "error 2").length, 1);
});

const EXPIRED = { status: 401, headers: { "content-type": "application/problem+json" } };

test("an expired token that nobody renews is the end over a WebSocket, too", async () => {
  const network = new Network();
  network.refuse = (url) => (url.startsWith("wss:") ? 4201 : 401);
  const one = network.source(NOTES);
  await until(() => one.readyState === 2);
  await settle();
  assert.deepEqual(one.told, ["error 2"]);
  assert.equal(network.sockets.length, 1, "it is not asked again and again");
});

test("a live connection whose token expires comes back once: it may be a cookie that was renewed", async () => {
  const network = new Network();
  const one = network.source(NOTES, { transports: ["websocket"] });
  await until(() => network.sockets[0]);
  network.sockets[0].say("welcome", welcome("e-0"));
  await until(() => one.readyState === 1);
  network.sockets[0].drop(4201);
  await until(() => network.sockets[1]);
  network.sockets[1].drop(4201);
  await until(() => one.readyState === 2);
  assert.deepEqual(one.told.filter((told) => typeof told === "string"), ["open 1", "error 0", "error 2"]);
});

test("with getToken an expired token is renewed on either transport, and the source stays", async () => {
  for (const transport of ["websocket", "fetch"]) {
    const network = new Network();
    const asked = [];
    const found = async (url, init) => {
      const bearer = init.headers.authorization;
      if (bearer === "Bearer new") return network.fetch(url, init);
      return new Response('{"code":"token-expired"}', EXPIRED);
    };
    const one = network.source(`${HOST}/api/notifications/stream`, {
      transports: [transport],
      fetch: found,
      getToken: async ({ fresh }) => (asked.push(fresh), fresh ? "new" : "old"),
    });
    if (transport === "websocket") {
      await until(() => network.sockets[0]);
      network.sockets[0].drop(4201);
      await until(() => network.sockets[1]);
      network.sockets[1].say("welcome", welcome("e-0"));
    } else {
      await until(() => network.streams[0]);
      network.streams[0].say("welcome", welcome("e-0"), "e-0");
    }
    await until(() => one.readyState === 1);
    assert.deepEqual(asked, [false, true]);
    one.close();
  }
});

test("close() leaves nothing behind", async () => {
  const network = new Network();
  const { one, stream, socket } = await shadowed(network);
  socket.say("view", note(1));
  one.close();
  assert.ok(stream.closed && socket.closed);
  await settle();
  assert.deepEqual(titles(one), []);
});

test("on a server: notifications, a task and a batch over a WebSocket; a foreign task as `EventSource` has it", async () => {
  const server = await Server.start();
  try {
    const bearer = token("alice");
    await server.call("PUT", "/v1/batches/B1", { owner: "alice", total: 1 });
    await server.call("PUT", "/v1/tasks/T%201", { owner: "alice", batch: "B1", total_steps: 2 });
    const open = (path, who = bearer) => {
      const one = new DualcastEventSource(`${server.url}${path}?token=${who}`, { WebSocket, timing: { settle: 100 } });
      sources.push(one);
      one.told = [];
      for (const type of ["open", "error", "connected", "notification", "progress", "completed", "finished"]) {
        one.addEventListener(type, ({ data }) => one.told.push(data ? [type, data] : `${type} ${one.readyState}`));
      }
      return one;
    };
    const paths = ["/api/notifications/stream", "/api/stream/tasks/T%201", "/api/stream/batches/B1"];
    const plain = await Promise.all(paths.map((path) => fetch(`${server.url}${path}?token=${bearer}`)));
    const made = paths.map((path) => open(path));
    for (const one of made) await until(() => one.transport === "websocket");
    await server.notify("alice", "你好");
    await server.call("POST", "/v1/tasks/T%201", { state: "completed", result: { f: 1.0 }, message: "完成" });
    const last = ["notification", "completed", "finished"];
    for (const [index, one] of made.entries()) {
      await until(() => one.told.at(-1)[0] === last[index], JSON.stringify(one.told));
      const reader = plain[index].body.getReader();
      const decoder = new TextDecoder();
      let text = "";
      while (!text.includes(`event: ${last[index]}`)) text += decoder.decode((await reader.read()).value, { stream: true });
      await reader.cancel();
      const due = [...text.matchAll(/event: (.*)\ndata: (.*)\n/g)].map(([, name, data]) => [name, data]);
      assert.deepEqual(one.told, ["open 1", ...due]);
    }
    const foreign = open("/api/stream/tasks/T%201", token("mallory"));
    await until(() => foreign.readyState === 2);
    assert.deepEqual(foreign.told, ["error 2"]);
  } finally {
    for (const one of sources) one.close();
    await server.close();
  }
});
