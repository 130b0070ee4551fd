// DualcastEventSource: the rules of WHATWG HTML section 9.2, ported from the web platform tests (eventsource/*), on
// plain event streams; then on a server that speaks both, over a move of the tenant while it is open.

import assert from "node:assert/strict";
import { createServer } from "node:http";
import { after, before, test } from "node:test";
import { DualcastEventSource } from "../../../clients/core/src/event_source.js";
import { Server, WebSocket, token, until } from "./support/server.js";

const TYPE = { "content-type": "text/event-stream" };
let site;
let base;
/** What answers a path: (request, response, number of the request). */
const routes = new Map();
const asked = new Map();
const open = new Set();

before(async () => {
  site = createServer((request, response) => {
    const path = request.url.split("?")[0];
    asked.set(path, [...(asked.get(path) ?? []), request]);
    routes.get(path)?.(request, response, asked.get(path).length);
  });
  await new Promise((done) => site.listen(0, "127.0.0.1", done));
  base = `http://127.0.0.1:${site.address().port}`;
});
after(() => {
  for (const source of open) source.close();
  site.closeAllConnections();
  site.close();
});

let number = 0;
/** A source for `answer`, with the events it was told. */
function source(answer, options = {}) {
  const path = `/${(number += 1)}`;
  routes.set(path, answer);
  const found = new DualcastEventSource(base + path, { timing: { first: 20, cap: 50 }, ...options });
  found.told = [];
  found.path = path;
  for (const type of ["open", "error"]) found.addEventListener(type, () => found.told.push(`${type} ${found.readyState}`));
  found.onmessage = (event) => found.told.push(event.data);
  open.add(found);
  return found;
}
const sends = (text, { end = false, headers = TYPE, status = 200 } = {}) => (_, response) => {
  response.writeHead(status, headers);
  response.write(text);
  if (end) response.end();
};
const settle = (ms = 120) => new Promise((done) => setTimeout(done, ms));

test("constructor: url, constants, attributes", () => {
  const one = source(sends(""));
  assert.equal(one.url, base + one.path);
  assert.equal(one.readyState, 0);
  assert.equal(one.withCredentials, false);
  assert.equal(source(sends(""), { withCredentials: 1 }).withCredentials, true);
  for (const target of [DualcastEventSource, one]) {
    assert.deepEqual([target.CONNECTING, target.OPEN, target.CLOSED], [0, 1, 2]);
    assert.throws(() => "use strict" && (target.OPEN = 7), TypeError);
  }
  assert.throws(() => new DualcastEventSource("http://:bad"), { name: "SyntaxError" });
  assert.throws(() => DualcastEventSource("x"), TypeError);
  assert.deepEqual([one.onopen, one.onerror], [null, null]);
  assert.ok(one instanceof EventTarget);
});

test("open, then messages, with origin, type, lastEventId and this", async () => {
  const one = source(sends("id: 5\nevent: named\ndata: a\n\ndata: b\n\n"));
  const events = [];
  one.addEventListener("named", function (event) {
    events.push([this === one, event.target === one, event instanceof MessageEvent, event.type, event.data, event.lastEventId, event.origin]);
  });
  await until(() => one.told.length === 2);
  assert.deepEqual(one.told, ["open 1", "b"]);
  assert.deepEqual(events, [[true, true, true, "named", "a", "5", base]]);
  assert.equal(asked.get(one.path)[0].headers.accept, "text/event-stream");
});

test("the end of a stream is an error, then it comes back after `retry` with Last-Event-ID", async () => {
  const one = source((request, response, time) => sends(time === 1 ? "retry: 250\nid: ü1\ndata: a\n\n" : `data: ${time}\n\n`, { end: time < 3 })(request, response));
  await until(() => one.told.includes("3"));
  assert.deepEqual(one.told, ["open 1", "a", "error 0", "open 1", "2", "error 0", "open 1", "3"]);
  const requests = asked.get(one.path);
  assert.deepEqual(requests.map((request) => request.headers["last-event-id"] && Buffer.from(request.headers["last-event-id"], "latin1").toString()), [undefined, "ü1", "ü1"]);
});

for (const status of [204, 205, 400, 401, 404, 500, 503]) {
  test(`status ${status} fails the connection for good`, async () => {
    const one = source((_, response) => response.writeHead(status, TYPE).end());
    await until(() => one.readyState === 2);
    await settle();
    assert.deepEqual(one.told, ["error 2"]);
    assert.equal(asked.get(one.path).length, 1);
  });
}

test("another content type fails it; parameters and case do not matter", async () => {
  for (const type of ["text/plain", "text/event-streams", "", "x-text/event-stream"]) {
    const one = source(sends("data: a\n\n", { headers: { "content-type": type } }));
    await until(() => one.readyState === 2, type);
    assert.deepEqual(one.told, ["error 2"]);
  }
  const one = source(sends("data: a\n\n", { headers: { "content-type": "Text/Event-Stream; charset=x" } }));
  await until(() => one.told.includes("a"));
});

test("a network error is no end", async () => {
  const one = source((request, response, time) => (time < 3 ? request.socket.destroy() : sends("data: a\n\n")(request, response)));
  await until(() => one.told.includes("a"));
  assert.deepEqual(one.told, ["error 0", "error 0", "open 1", "a"]);
});

test("redirects are followed", async () => {
  const to = source(sends("data: there\n\n"));
  to.close();
  for (const status of [301, 302, 303, 307]) {
    const one = source((_, response) => response.writeHead(status, { location: to.path }).end());
    await until(() => one.told.includes("there"), String(status));
  }
});

test("close(): nothing is told any more, in whatever moment", async () => {
  const one = source(sends("data: a\n\ndata: b\n\n"));
  one.addEventListener("message", () => one.close());
  await until(() => one.readyState === 2);
  await settle();
  assert.deepEqual(one.told, ["open 1", "a"]);
  one.close();
  const two = source(sends("data: a\n\n"));
  two.close();
  await settle();
  assert.deepEqual(two.told, []);
  assert.equal(asked.get(two.path), undefined);
});

test("a BOM at the start goes, another one stays", async () => {
  const one = source(sends("\uFEFFdata: a\n\n\uFEFFdata: b\n\ndata: \uFEFFc\n\n"));
  await until(() => one.told.length === 3);
  assert.deepEqual(one.told, ["open 1", "a", "\uFEFFc"]);
});

test("UTF-8 that is cut anywhere, and what is none", async () => {
  const bytes = Buffer.concat([Buffer.from("data: 你好\n\n"), Buffer.from("data: "), Buffer.from([0xff]), Buffer.from("\n\n")]);
  const one = source(async (_, response) => {
    response.writeHead(200, TYPE);
    for (const byte of bytes) {
      response.write(Buffer.from([byte]));
      await settle(1);
    }
  });
  await until(() => one.told.length === 3);
  assert.deepEqual(one.told, ["open 1", "你好", "\uFFFD"]);
});

test("handler attributes keep their place, can be replaced and taken off", async () => {
  const one = source(sends("data: 1\n\ndata: 2\n\n"));
  const calls = [];
  one.onmessage = () => calls.push("old");
  one.addEventListener("message", () => calls.push("listener"));
  one.onmessage = () => calls.push("new");
  one.onopen = "not callable";
  assert.equal(one.onopen, null);
  one.addEventListener("message", ({ data }) => data === "1" && (one.onmessage = null));
  await until(() => calls.length === 3);
  assert.deepEqual(calls, ["new", "listener", "listener"]);
  assert.equal(one.onmessage, null);
});

test("a legacy page through sse → websocket → sse while open: the same text from both, each event once", async () => {
  const server = await Server.start();
  try {
    await server.stage("sse");
    const bearer = token("alice");
    const one = new DualcastEventSource(`${server.url}/v1/stream?token=${bearer}`, { WebSocket, timing: { spread: 50, settle: 300, probe: 200 } });
    open.add(one);
    const told = [];
    const texts = [];
    for (const type of ["open", "error"]) one.addEventListener(type, () => told.push(type));
    one.addEventListener("notification", (event) => {
      const found = JSON.parse(event.data);
      told.push(found.data.title);
      texts.push(event.data, event.lastEventId);
    });
    const plain = await fetch(`${server.url}/v1/stream?token=${bearer}`);
    const reader = plain.body.getReader();
    await until(() => one.readyState === 1);
    assert.equal(one.transport, "sse");
    const more = { store: true, data: { float: 1.0, big: 12345678901234567890n.toString(), text: "你好 \u2028 <&>" } };
    await server.notify("alice", "one", more);
    for (const stage of ["shadow", "fallback"]) {
      await server.stage(stage);
      await server.notify("alice", stage, more);
    }
    await until(() => one.transport === "websocket", "on WebSocket");
    await server.notify("alice", "socket", more);
    await server.stage("websocket");
    await server.notify("alice", "last", more);
    await until(() => told.includes("last"));
    await server.stage("sse");
    await until(() => one.transport === "sse", "back on SSE", 45_000);
    await server.notify("alice", "back", more);
    await until(() => told.includes("back"));
    assert.deepEqual(told, ["open", "one", "shadow", "fallback", "socket", "last", "back"]);
    let stream = "";
    while (!stream.includes('"back"')) stream += new TextDecoder().decode((await reader.read()).value);
    const blocks = [...stream.matchAll(/id: ([^\n]*)\nevent: notification\ndata: ([^\n]*)\n/g)];
    assert.deepEqual(texts, blocks.flatMap(([, id, data]) => [data, id]));
    await reader.cancel();
    one.close();
  } finally {
    await server.close();
  }
});
