// The client over sockets and answers that a test makes.

import assert from "node:assert/strict";
import { afterEach, test } from "node:test";
import { DualcastClient, UnauthorizedError } from "../../../clients/core/src/index.js";
import { until } from "./support/server.js";

const TIMING = { settle: 20, answer: 40, spread: 1, probe: 20, probeCap: 40, first: 5, cap: 10, open: 40, greet: 40, prepare: 60 };

const clients = [];
afterEach(() => clients.splice(0).forEach((client) => client.disconnect()));

/** A world of fake sockets: `sockets` in the order they were opened; `answers` by path for fetch. */
function world(options = {}) {
  const found = { sockets: [], asked: [], answers: {}, metrics: [], heard: [] };
  class FakeSocket {
    constructor(url, protocols) {
      Object.assign(this, { url: new URL(url), protocols, sent: [], ended: false });
      found.sockets.push(this);
    }
    send(text) {
      const frame = JSON.parse(text);
      this.sent.push(frame);
      if (frame.type === "ping") this.frame({ type: "pong" });
    }
    close() {
      this.ended = true;
    }
    text(text) {
      queueMicrotask(() => this.onmessage?.({ data: text }));
    }
    frame(frame) {
      this.text(JSON.stringify(frame));
    }
    welcome(more = {}) {
      this.onopen?.();
      this.frame({ type: "welcome", connection: "c", tenant: "t", user: "alice", stage: "fallback", channels: [], heartbeat_s: 25, cursor: "e-0", ...more });
    }
    publication(number, more = {}) {
      this.frame({ type: "publication", cursor: `e-${number}`, channel: "user:alice", id: `p${number}`, event: "note", time: "", data: number, ...more });
    }
    end(code, reason = "") {
      this.onclose?.({ code, reason });
    }
  }
  const fetcher = async (url, init) => {
    const path = url.replace("http://h", "");
    found.asked.push([init.method, path]);
    const answer = found.answers[path.split("?")[0]];
    if (!answer) throw new TypeError("no network");
    const body = answer(path, init);
    return new Response(JSON.stringify(body), { status: body.status ?? 200 });
  };
  const kept = new Map();
  const storage = { getItem: (key) => kept.get(key) ?? null, setItem: (key, value) => kept.set(key, value), removeItem: (key) => kept.delete(key) };
  const client = new DualcastClient({
    url: "http://h/",
    WebSocket: FakeSocket,
    fetch: fetcher,
    transports: ["websocket"],
    timing: TIMING,
    storage,
    metrics: (...metric) => found.metrics.push(metric),
    ...options,
  });
  clients.push(client);
  client.on("publication", ({ data }) => found.heard.push(data));
  return Object.assign(found, {
    client,
    kept,
    async socket(number = 1) {
      await until(() => found.sockets.length >= number, `socket ${number}`);
      return found.sockets[number - 1];
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

test("the URL says who this is and where it was; the token is a subprotocol, never in the URL", async () => {
  const w = world({ getToken: () => "a.b.c", channels: ["topic:a,b"], device: "web", deviceId: "d1", app: "1.2" });
  const one = await w.live();
  one.publication(7);
  await until(() => w.heard.length === 1);
  one.end(1006);
  const { url, protocols } = await w.socket(2);
  assert.equal(url.origin + url.pathname, "ws://h/v1/socket");
  const { instance, ...rest } = Object.fromEntries(url.searchParams);
  assert.deepEqual(rest, { channel: "topic:a,b", device: "web", device_id: "d1", app: "1.2", cursor: "e-7" });
  assert.equal(instance, w.client.instance);
  assert.deepEqual(protocols, ["dualcast", "bearer.a.b.c"]);
});

test("each publication once, whatever comes again; frames nobody knows are ignored", async () => {
  const w = world();
  const one = await w.live();
  one.text("{");
  one.text("7");
  one.text("null");
  one.frame({ type: "from-the-future", some: 1 });
  for (const number of [1, 2, 2, 1, 3]) one.publication(number);
  one.publication(4, { event: "connection" });
  const statuses = [];
  w.client.on("connection", (status) => statuses.push(status));
  await until(() => w.heard.length === 4);
  assert.deepEqual(w.heard, [1, 2, 3, 4]);
  assert.deepEqual(statuses, [], "a publisher cannot pose as the client");
  assert.equal(w.metrics.filter(([name]) => name === "duplicates").length, 2);
  assert.equal(w.metrics.filter(([name]) => name === "bad_frame").length, 3);
});

test("a listener that throws harms nobody, and its error is not swallowed", async (t) => {
  const w = world();
  const caught = [];
  const others = process.listeners("uncaughtException");
  process.removeAllListeners("uncaughtException");
  process.on("uncaughtException", (error) => caught.push(error.message));
  t.after(() => {
    process.removeAllListeners("uncaughtException");
    for (const one of others) process.on("uncaughtException", one);
  });
  const one = await w.live();
  const after = [];
  w.client.on("note", () => {
    throw new Error("of the application");
  });
  w.client.on("note", ({ data }) => after.push(data));
  one.publication(1);
  one.publication(2);
  await until(() => after.length === 2 && caught.length === 2);
  assert.deepEqual(caught, ["of the application", "of the application"]);
});

test("a gap of what came late is filled from history, by pages, once and without moving the position", async () => {
  const w = world();
  const entry = (number) => ({ cursor: `e-${number}`, id: `p${number}`, event: "note", time: "", data: number });
  w.answers["/v1/channels/user:alice/history"] = (path) =>
    path.includes("e-2") ? { channel: "user:alice", publications: [entry(3), entry(4)], next: "e-4", more: true, gaps: [] } : { channel: "user:alice", publications: [entry(5), entry(6)], next: "e-6", more: false, gaps: [] };
  const one = await w.live();
  for (const number of [2, 5, 9]) one.publication(number);
  const gaps = [];
  w.client.on("gap", (gap) => gaps.push(gap));
  const gap = { type: "gap", channel: "user:alice", after: "e-2", cursor: "e-9", history_url: "/v1/channels/user:alice/history?after=e-2" };
  one.frame({ ...gap, reason: "late" });
  await until(() => w.heard.length === 6);
  assert.deepEqual(w.heard, [2, 5, 9, 3, 4, 6]);
  one.frame({ ...gap, reason: "trimmed" });
  await until(() => gaps.length === 2);
  assert.equal(w.asked.length, 2, "what is lost is not asked for");
  assert.equal(await gaps[1].backfill(), 4);
  one.end(1006);
  assert.equal((await w.socket(2)).url.searchParams.get("cursor"), "e-9");
});

test("commands of a connection that broke are sent again, typing is not", async () => {
  const w = world();
  const one = await w.live();
  const read = w.client.inbox.read(["n1"]);
  const message = w.client.request("message", { conversation: "c1", content: "x" });
  const typing = w.client.request("typing", { conversation: "c1" });
  typing.catch(() => {});
  await until(() => one.sent.length >= 4);
  one.end(1006);
  await assert.rejects(typing, { code: "disconnected" });
  const two = await w.socket(2);
  two.welcome();
  await until(() => two.sent.length >= 3);
  const again = two.sent.filter(({ type }) => type !== "ping");
  assert.deepEqual(again.map(({ type }) => type), ["read", "message"]);
  assert.equal(again[1].id, one.sent.find(({ type }) => type === "message").id, "it is the same message");
  for (const { ref, type } of again) two.frame({ type: type === "read" ? "marked" : "sent", ref, id: "m", action: "read", ids: ["n1"], inbox: { unread: 0, unseen: 0, revision: [1, 1] } });
  assert.equal((await read).action, "read");
  await message;
});

test("getToken: no token to be had stops; one that fails or hangs is asked again, and is no fault of WebSocket", async () => {
  const gone = world({ getToken: () => Promise.reject(new UnauthorizedError("signed out")) });
  gone.client.connect();
  await until(() => gone.client.status.status === "stopped");
  assert.equal(gone.sockets.length, 0);
  let calls = 0;
  const ways = [() => Promise.reject(new Error("503")), () => new Promise(() => {}), () => Promise.reject(new Error("503"))];
  const slow = world({ transports: ["websocket", "fetch"], getToken: () => (ways[(calls += 1) - 1] ?? (() => "a.b.c"))() });
  slow.client.connect();
  const hung = new Promise((done) => setTimeout(done, 300));
  await hung;
  assert.deepEqual(slow.metrics.filter(([name]) => name === "fallback"), []);
});

test("manualAck: what the application was not done with comes again on the next page", async () => {
  const w = world({ manualAck: true, user: "alice" });
  const one = await w.live();
  for (const number of [1, 2, 3]) one.publication(number);
  await until(() => w.heard.length === 3);
  w.client.ack("e-2");
  assert.deepEqual(one.sent.at(-1), { type: "ack", cursor: "e-2" });
  w.client.disconnect();
  assert.deepEqual([...w.kept.values()], ['"e-2"']);
});

test("a welcome asks for the counters only where somebody wants them, and only once", async () => {
  const w = world();
  const one = await w.live();
  assert.deepEqual(one.sent.filter(({ type }) => type === "counters"), []);
  w.client.on("badge", () => {});
  await until(() => one.sent.some(({ type }) => type === "counters"));
  const { ref } = one.sent.find(({ type }) => type === "counters");
  one.frame({ type: "inbox_counters", ref, inbox: { unread: 2, unseen: 1, revision: [5, 5] } });
  await until(() => w.client.badge?.unread === 2);
  one.publication(1, { inbox: { unread: 3, unseen: 2, revision: [6, 5] } });
  one.publication(2, { channel: "user:bob", inbox: { unread: 9, unseen: 9, revision: [7, 5] } });
  await until(() => w.heard.length === 2);
  assert.equal(w.client.badge.unread, 3, "another user's counters are left aside");
  one.end(1006);
  const two = await w.socket(2);
  two.welcome();
  await until(() => two.sent.length > 0);
  assert.deepEqual(two.sent.map(({ type }) => type), ["ping"]);
});

test("disconnect leaves no timer, no socket and no promise behind", async () => {
  const w = world();
  const one = await w.live();
  one.publication(1);
  const waiting = w.client.inbox.list();
  w.client.disconnect();
  await assert.rejects(waiting, { code: "disconnected" });
  assert.equal(one.ended, true);
  one.welcome();
  one.publication(2);
  await new Promise((done) => setTimeout(done, 100));
  assert.equal(w.sockets.length, 1);
  assert.equal(w.client.status.status, "off");
});

test("a command that is no JSON is refused at once, live or not, and takes no place among those that wait", async () => {
  const cycle = {};
  cycle.self = cycle;
  const w = world();
  const bad = (fields) => assert.rejects(w.client.request("read", fields), { name: "DualcastError", code: "bad-command" });
  for (let times = 0; times < 101; times += 1) await bad({ ids: [cycle] });
  await w.live();
  await bad({ ids: [1n] });
  const good = w.client.inbox.list();
  w.client.disconnect();
  await assert.rejects(good, { code: "disconnected" });
});
