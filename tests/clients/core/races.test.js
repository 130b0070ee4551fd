// Races between two links, the page and its application: each of these lost something, or stayed stuck, once.

import assert from "node:assert/strict";
import { afterEach, test } from "node:test";
import { CLOCK } from "../../../clients/core/src/engine.js";
import { Welcomes } from "../../../clients/core/src/welcomes.js";
import { until } from "./support/server.js";
import { TIMING, disconnectAll, twoLinks } from "./support/two_links.js";

const settled = () => new Promise((done) => setTimeout(done, TIMING.settle * 3));
afterEach(disconnectAll);

const range = (from, to) => Array.from({ length: to - from + 1 }, (_, at) => from + at);

test("shadow to fallback: what the stream had not brought yet comes from the socket, in order", async () => {
  const w = twoLinks();
  const [socket, stream] = await w.shadow();
  for (const number of range(1, 5)) socket.publication(number);
  for (const number of range(1, 3)) stream.publication(number);
  assert.deepEqual(w.heard, [1, 2, 3], "the stream is the truth");
  await settled();
  socket.frame({ type: "stage", stage: "fallback" });
  socket.publication(6);
  assert.deepEqual(w.heard, range(1, 6));
});

test("shadow: the stream falls silent and ends, the socket goes on where it was", async () => {
  const w = twoLinks();
  const [socket, stream] = await w.shadow();
  socket.publication(1);
  stream.publication(1);
  for (const number of range(2, 4)) socket.publication(number);
  stream.end();
  socket.publication(5);
  assert.deepEqual(w.heard, range(1, 5));
  const again = await w.stream(2);
  assert.equal(again.url.searchParams.get("cursor"), "e-5");
  again.welcome({ stage: "shadow" });
  again.publication(6);
  socket.publication(6);
  assert.deepEqual(w.heard, range(1, 6));
});

test("shadow: what only the socket has read does not move the position", async () => {
  const w = twoLinks();
  const [socket, stream] = await w.shadow();
  stream.publication(1);
  socket.pong = "e-9";
  socket.frame({ type: "subscribed", channels: [], cursor: "e-9" });
  socket.frame({ type: "pong", cursor: "e-9" });
  socket.frame({ type: "bye", code: 4100, reason: "drain", cursor: "e-9", retry_ms: 1 });
  stream.end();
  const again = await w.stream(2);
  assert.equal(again.url.searchParams.get("cursor"), "e-1");
  assert.equal((await w.socket(2)).url.searchParams.get("cursor"), "e-1");
});

test("shadow: a hole that only the socket has is told when the socket counts, and not before", async () => {
  const w = twoLinks({ backfill: "none" });
  const gaps = [];
  w.client.on("gap", ({ channel }) => gaps.push(channel));
  const [socket, stream] = await w.shadow();
  const gap = { type: "gap", channel: "topic:a", reason: "trimmed", cursor: "e-2", history_url: "/v1/x" };
  socket.publication(1);
  socket.frame(gap);
  socket.publication(3);
  stream.publication(1);
  stream.publication(2);
  stream.publication(3);
  assert.deepEqual(gaps, []);
  socket.frame({ ...gap, channel: "topic:b", cursor: "e-4" });
  stream.end();
  assert.deepEqual(gaps, ["topic:b"]);
  assert.deepEqual(w.heard, [1, 2, 3]);
});

test("shadow: a stream that is thousands behind keeps nothing back, and nothing is kept for it without end", async () => {
  const w = twoLinks();
  const [socket, stream] = await w.shadow();
  for (const number of range(1, 5_000)) socket.publication(number);
  assert.ok(w.heard.length >= 3_000, String(w.heard.length));
  for (const number of range(1, 5_000)) stream.publication(number);
  assert.deepEqual(w.heard, range(1, 5_000));
});

test("an application that disconnects when the page is hidden away and connects when it is back is connected", async () => {
  const w = twoLinks({ transports: ["websocket"] });
  const page = new EventTarget();
  Object.defineProperty(globalThis, "document", { value: Object.assign(page, { visibilityState: "visible" }), configurable: true });
  const target = new EventTarget();
  for (const name of ["addEventListener", "removeEventListener"]) globalThis[name] = target[name].bind(target);
  try {
    await w.live();
    target.dispatchEvent(Object.assign(new Event("pagehide"), { persisted: true }));
    w.client.disconnect();
    w.client.connect();
    (await w.socket(2)).welcome();
    await until(() => w.client.status.status === "live");
  } finally {
    w.client.disconnect();
    for (const name of ["document", "addEventListener", "removeEventListener"]) delete globalThis[name];
  }
});

test("subscribing and unsubscribing for days keeps nothing", async () => {
  const waiting = new Welcomes();
  for (const answer of [async () => {}, () => Promise.reject(new Error("refused"))]) {
    await waiting.next(answer()).catch(() => {});
    await settled();
    assert.equal(waiting.size, 0);
  }
  const next = waiting.next();
  assert.equal(waiting.size, 1);
  waiting.arrived();
  await next;
  assert.equal(waiting.size, 0);
});

test("a channel that is refused over a stream does not end the client", async () => {
  const headers = { "content-type": "application/problem+json" };
  const refused = () => new Response(JSON.stringify({ code: "forbidden-channel" }), { status: 403, headers });
  const w = twoLinks({ transports: ["fetch"] });
  w.answers["/v1/stream"] = (path, { signal }) => {
    if (path.includes("secret")) return refused();
    const body = new ReadableStream({
      start(controller) {
        const text = 'event: welcome\ndata: {"tenant":"t","user":"alice","stage":"fallback","channels":[],"heartbeat_s":25}\n\n';
        controller.enqueue(new TextEncoder().encode(text));
        signal.addEventListener("abort", () => controller.error(new Error("aborted")));
      },
    });
    return new Response(body, { headers: { "content-type": "text/event-stream" } });
  };
  w.client.connect();
  await until(() => w.client.status.status === "live");
  await assert.rejects(w.client.subscribe("topic:secret"), { code: "forbidden-channel" });
  await until(() => w.client.status.status === "live");
  assert.deepEqual(w.client.channels, []);
});

test("what came late is asked for again when history could not be read", async () => {
  const w = twoLinks({ transports: ["websocket"], clock: { ...CLOCK, random: () => 0 } });
  const socket = await w.live();
  let tries = 0;
  w.answers["/v1/channels/topic%3Aa/history"] = () => {
    tries += 1;
    if (tries < 3) return new Response(JSON.stringify({ code: "bus-unavailable", retryable: true }), { status: 503 });
    return { channel: "topic:a", publications: [{ id: "late", event: "note", time: "", data: "late" }], more: false };
  };
  socket.frame({ type: "gap", channel: "user:alice", reason: "late", cursor: "e-3", history_url: "/v1/channels/topic%3Aa/history?after=e-1" });
  await until(() => w.heard.includes("late"), "the late one");
});

test("history that is refused for good is not asked for again", async () => {
  const w = twoLinks({ transports: ["websocket"] });
  const socket = await w.live();
  let tries = 0;
  w.answers["/v1/h"] = () => ((tries += 1), new Response(JSON.stringify({ code: "forbidden-channel", retryable: false }), { status: 403 }));
  socket.frame({ type: "gap", channel: "user:alice", reason: "late", cursor: "e-3", history_url: "/v1/h?after=e-1" });
  await until(() => tries === 1);
  await settled();
  assert.equal(tries, 1);
});

test("renew() asks anew although somebody was asking already", async () => {
  const asked = [];
  const w = twoLinks({ transports: ["websocket"], getToken: () => new Promise((done) => asked.push(done)) });
  w.client.connect();
  await until(() => asked.length === 1);
  w.client.renew();
  asked[0]("old.token.x");
  await until(() => asked.length === 2, "getToken once more");
  asked[1]("new.token.x");
  await w.socket();
});

test("a tab that followed and has disconnected does not say that it is live", async () => {
  let sharer;
  const share = (_base, _tab, given) => {
    sharer = given;
    return { leading: false, start() {}, stop() {}, hello() {}, tell() {}, ask: async () => ({}) };
  };
  const w = twoLinks({ transports: ["websocket"], share });
  w.client.connect();
  sharer.status({ status: { status: "live", transport: "websocket", stage: "fallback", leader: true, stopped: null }, greeting: null, cursor: "" });
  assert.equal(w.client.status.status, "live");
  w.client.disconnect();
  assert.deepEqual(w.client.status, { status: "off", transport: null, stage: "", leader: false, stopped: null });
});

test("two tabs of one instance id are two tabs", () => {
  const ids = new Set();
  const share = (_base, tab) => (ids.add(tab), null);
  twoLinks({ share, instance: "copied with the tab" });
  twoLinks({ share, instance: "copied with the tab" });
  assert.equal(ids.size, 2);
});

test("another tab's channel that is refused does not end the connection of all", async () => {
  let sharer;
  const share = (_base, _tab, given) => {
    sharer = given;
    return { leading: true, start() {}, stop() {}, hello() {}, tell() {}, ask: async () => ({}) };
  };
  const w = twoLinks({ transports: ["websocket"], share });
  w.client.connect();
  sharer.lead(true);
  sharer.others(["topic:secret"]).catch(() => {}); // that it failed `Tabs` hears
  const socket = await w.socket();
  socket.onopen();
  socket.end(4003, "forbidden-channel");
  assert.equal(w.client.status.status, "stopped");
  sharer.others([]); // the tab heard of it and does without
  (await w.socket(2)).welcome();
  await until(() => w.client.status.status === "live");
});

test("a native EventSource that is quiet is left alone: nobody hears its heartbeats", async () => {
  const w = twoLinks({ transports: ["eventsource"], timing: { ...TIMING, slack: 5 } });
  w.client.connect();
  (await w.stream()).welcome({ heartbeat_s: 0.005 });
  await settled();
  assert.equal(w.streams.length, 1);
  assert.equal(w.client.status.status, "live");
});

test("a hidden tab, whose timers ring once a minute, keeps its quiet socket", async () => {
  let now = 0;
  const timers = new Map();
  const clock = { now: () => now, random: () => 0.5, clear: (timer) => timers.delete(timer), set: (run, ms) => (timers.set(run, now + ms), run) };
  const w = twoLinks({ transports: ["websocket"], clock, timing: {} });
  const ring = async () => {
    for (const [run, due] of [...timers]) if (due <= now && timers.delete(run)) run();
    now += 50; // an answer takes a while
    await new Promise(setImmediate);
  };
  w.client.connect();
  await ring();
  w.sockets[0].welcome();
  for (now = 60_000; now < 1_800_000; now += 60_000) await ring();
  assert.equal(w.sockets.length, 1);
  assert.equal(w.client.status.status, "live");
  w.sockets[0].send = () => {}; // and one that answers no more is still found
  for (const end = now + 300_000; now < end; now += 60_000) await ring();
  assert.equal(w.sockets.length, 2);
});

/** Refuses the first `times` commands of type `counters`, then answers; the number asked so far. */
function counting(socket, code, times) {
  let asked = 0;
  const send = socket.send;
  socket.send = (text) => {
    send.call(socket, text);
    const { type, ref } = JSON.parse(text);
    if (type !== "counters") return;
    asked += 1;
    const answer = asked <= times ? { type: "error", ref, code, reason: "" } : { type: "inbox_counters", ref, inbox: { unread: 2, unseen: 1, revision: [5, 5] } };
    queueMicrotask(() => socket.frame(answer));
  };
  return () => asked;
}

test("counters that could not be read are asked for again; what is refused for good is not", async () => {
  for (const [code, asked] of [["bus-unavailable", 3], ["not-available", 1]]) {
    const w = twoLinks({ transports: ["websocket"], clock: { ...CLOCK, random: () => 0 } });
    const count = counting(await w.live(), code, 2);
    w.client.on("badge", () => {});
    await until(() => count() === asked && (asked === 1 || w.client.badge?.unread === 2));
    await settled();
    assert.equal(count(), asked);
    w.client.disconnect();
  }
});

test("counters are asked for only while somebody listens, and not after disconnect", async () => {
  const w = twoLinks({ transports: ["websocket"], clock: { ...CLOCK, random: () => 0 } });
  const count = counting(await w.live(), "bus-unavailable", Infinity);
  const off = w.client.on("badge", () => {});
  await until(() => count() >= 2);
  off();
  const before = count();
  await new Promise((done) => setTimeout(done, 200));
  assert.ok(count() <= before, "nobody listens");
});

test("a hole of what came late that cannot be filled is told once more, as one to read again", async () => {
  const w = twoLinks({ transports: ["websocket"] });
  const socket = await w.live();
  const gaps = [];
  w.client.on("gap", (gap) => gaps.push(gap));
  w.answers["/v1/h"] = () => new Response(JSON.stringify({ code: "forbidden-channel", retryable: false }), { status: 403 });
  socket.frame({ type: "gap", channel: "user:alice", reason: "late", cursor: "e-3", history_url: "/v1/h?after=e-1" });
  await until(() => gaps.length === 2);
  await settled();
  assert.deepEqual(gaps.map(({ channel, reason, filled }) => [channel, reason, filled]), [["user:alice", "late", undefined], ["user:alice", "late", false]]);
  await assert.rejects(gaps[1].backfill(), { code: "forbidden-channel" });
});
