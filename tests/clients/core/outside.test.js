// What comes from outside: callbacks, tokens, users, other tabs, long histories. Each of these went wrong once.

import assert from "node:assert/strict";
import { afterEach, test } from "node:test";
import { DualcastError } from "../../../clients/core/src/index.js";
import { Emitter } from "../../../clients/core/src/emitter.js";
import { Parity } from "../../../clients/core/src/parity.js";
import { Rest } from "../../../clients/core/src/rest.js";
import { Tabs } from "../../../clients/core/src/tabs.js";
import { Timers } from "../../../clients/core/src/timers.js";
import { Token } from "../../../clients/core/src/token.js";
import { until } from "./support/server.js";
import { TIMING, disconnectAll, twoLinks } from "./support/two_links.js";

const settled = () => new Promise((done) => setTimeout(done, TIMING.settle * 3));
afterEach(disconnectAll);

/** @param {object} claims */
const jwt = (claims) => `x.${Buffer.from(JSON.stringify(claims)).toString("base64url")}.x`;
const expired = () => jwt({ sub: "alice", exp: 1 });

test("a getToken that hangs is given up and asked again", async (t) => {
  t.mock.timers.enable({ apis: ["setTimeout"] });
  const calls = [];
  const token = new Token(() => new Promise((done) => calls.push(done)));
  const first = [token.get(), token.get()];
  t.mock.timers.tick(20_000);
  for (const one of first) await assert.rejects(one, { code: "token-timeout", retryable: true });
  const second = token.get();
  assert.equal(calls.length, 2);
  calls[1]("later");
  assert.equal(await second, "later");
});

test("a getToken that gives what has expired is asked once per attempt, at growing distances, and never the end", async () => {
  const fresh = [];
  const getToken = async (why) => (fresh.push(why.fresh), expired());
  const waits = [];
  const clock = { now: () => performance.now(), random: () => 1, clear: clearTimeout, set: (run, ms) => (waits.push(ms), setTimeout(run, Math.min(ms, 5))) };
  const w = twoLinks({ transports: ["websocket"], getToken, clock, timing: { ...TIMING, open: 401, first: 100, cap: 800 } });
  w.client.connect();
  for (let number = 1; number <= 6; number += 1) (await w.socket(number)).end(4201, "token expired");
  assert.deepEqual(fresh, [false, true, true, true, true, true]);
  const between = waits.filter((ms) => [0, 100, 200, 400, 800].includes(ms));
  assert.deepEqual(between, [0, 0, 200, 400, 800, 800, 800]);
  assert.equal(w.client.status.status, "waiting");
  assert.equal(w.client.status.stopped, null);
});

test("the same with tickets: an expired token is no refusal for good", async () => {
  let asked = 0;
  const w = twoLinks({ transports: ["websocket"], auth: "ticket", getToken: async () => ((asked += 1) > 4 ? "good" : expired()) });
  w.answers["/v1/tickets"] = (_path, { headers }) =>
    headers.authorization === "Bearer good" ? { ticket: "t" } : new Response(JSON.stringify({ code: "token-expired" }), { status: 401 });
  w.client.connect();
  assert.equal((await w.socket()).url.searchParams.get("ticket"), "t");
});

test("metrics that throw stop nothing", async (t) => {
  const errors = [];
  const later = globalThis.queueMicrotask;
  const caught = (run) => () => {
    try {
      run();
    } catch (error) {
      errors.push(error.message);
    }
  };
  t.mock.method(globalThis, "queueMicrotask", (run) => later(caught(run)));
  const metrics = (name) => {
    throw new Error(name);
  };
  const w = twoLinks({ transports: ["websocket"], metrics });
  w.client.connect();
  const socket = await w.socket();
  socket.welcome();
  socket.end(1006);
  (await w.socket(2)).welcome();
  assert.equal(w.client.status.status, "live");
  await until(() => errors.length === 3);
  assert.deepEqual(errors, ["connected", "closed", "connected"]);
});

test("one function that listens for two is heard by the other when one leaves", () => {
  const events = new Emitter();
  let calls = 0;
  const listener = () => (calls += 1);
  const leave = events.on("x", listener);
  events.on("x", listener);
  events.emit("x");
  leave();
  leave();
  events.emit("x");
  assert.equal(calls, 3);
});

test("the badge of one user is not shown to the next", async () => {
  const w = twoLinks({ transports: ["websocket"] });
  const badges = [];
  w.client.on("badge", (badge) => badges.push(badge.unread));
  const answer = async (socket, unread, revision) => {
    await until(() => socket.sent.some(({ type }) => type === "counters"), "the counters are asked for");
    const { ref } = socket.sent.find(({ type }) => type === "counters");
    socket.frame({ type: "inbox_counters", ref, inbox: { unread, unseen: 0, revision } });
    await until(() => badges.at(-1) === unread, `${unread} unread`);
  };
  const one = await w.live();
  await answer(one, 7, [50, 5]);
  w.client.renew();
  one.end(4200);
  const two = await w.socket(2);
  two.welcome({ user: "bob" });
  assert.equal(w.client.badge, null);
  await answer(two, 1, [3, 5]);
});

test("a history without end is told, and what is not filled is counted", async () => {
  const counted = [];
  const w = twoLinks({ transports: ["websocket"], metrics: (...metric) => counted.push(metric) });
  const socket = await w.live();
  let pages = 0;
  w.answers["/v1/h"] = () => ({ channel: "topic:a", publications: [], more: true, next: String((pages += 1)) });
  const gaps = [];
  w.client.on("gap", (gap) => gaps.push(gap));
  socket.frame({ type: "gap", channel: "topic:a", reason: "trimmed", cursor: "e-3", history_url: "/v1/h?after=e-1" });
  await assert.rejects(gaps[0].backfill(), { code: "too-long", retryable: false });
  assert.equal(pages, 200);
  socket.frame({ type: "gap", channel: "topic:a", reason: "late", cursor: "e-4", history_url: "/v1/h?after=e-1" });
  await until(() => counted.some(([name, , labels]) => name === "unfilled" && labels.reason === "too-long"));
});

test("history that is still being read when the client disconnects is for nobody", async () => {
  const w = twoLinks({ transports: ["websocket"] });
  const socket = await w.live();
  const publications = [{ id: "late", event: "note", time: "", data: "late" }];
  const waiting = [];
  w.answers["/v1/h"] = () => new Promise((done) => waiting.push(done));
  const gap = { type: "gap", channel: "topic:a", reason: "late", history_url: "/v1/h?after=e-1" };
  socket.frame({ ...gap, cursor: "e-3" });
  socket.frame({ ...gap, cursor: "e-4" });
  await until(() => waiting.length === 2);
  w.client.disconnect();
  waiting[0]({ channel: "topic:a", publications, more: true, next: "e-9" });
  waiting[1](new Response(JSON.stringify({ code: "bus-unavailable", retryable: true }), { status: 503 }));
  await settled();
  assert.deepEqual(w.heard, []);
  assert.equal(w.asked.length, 2);
});

test("an answer that breaks off, or never ends, is no answer", async (t) => {
  const token = new Token();
  const broken = new Rest("http://h", token, async () => new Response(new ReadableStream({ start: (c) => c.error(new TypeError("lost")) })));
  await assert.rejects(broken.call("GET", "/x"), { code: "unreachable", retryable: true });
  const given = new AbortController();
  t.mock.method(AbortSignal, "timeout", () => given.signal);
  const hangs = new Rest("http://h", token, (_url, { signal }) => new Promise((_, reject) => signal.addEventListener("abort", () => reject(signal.reason))));
  const asked = hangs.call("GET", "/x");
  queueMicrotask(() => given.abort());
  await assert.rejects(asked, { code: "unreachable", retryable: true });
  const empty = new Rest("http://h", token, async () => new Response(null, { status: 204 }));
  assert.equal(await empty.call("DELETE", "/x"), null);
});

test("parity: a busy minute comes in reports the server takes, none of them twice", () => {
  const parity = new Parity();
  const now = Date.now();
  for (let n = 0; n < 1_200; n += 1) for (const link of ["sse", "ws"]) parity.note(link, { id: `p${n}`, time: "2001-01-01T00:00:00Z" }, now - 60_000);
  const timers = [];
  const clock = { now: () => 0, random: () => 0, clear() {}, set: (run) => timers.push(run) };
  const reports = [];
  parity.watch(true, new Timers(clock), 1_000, (report) => reports.push(report));
  timers[0]();
  assert.deepEqual(reports.map(({ sse, websocket }) => [sse.ids.length, websocket.ids.length]), [[500, 500], [500, 500], [200, 200]]);
  assert.equal(new Set(reports.flatMap(({ sse }) => sse.ids)).size, 1_200);
  assert.ok(reports[0].sse.latency_ms.every((ms) => ms <= 86_400_000));
});

/** Two tabs of a group: [leader, follower]. `command` is the leader's. */
async function group(t, command) {
  const name = `group ${Math.random()}`;
  const sharer = { lead() {}, frame() {}, status() {}, present: () => ({}), channels: () => [], others() {}, command };
  const locks = new Map();
  const request = async (lock, { signal }, held) => {
    const before = locks.get(lock);
    const turn = Promise.resolve(before).then(() => (signal.aborted ? undefined : held()));
    locks.set(lock, turn);
    return turn;
  };
  const had = Object.getOwnPropertyDescriptor(globalThis, "navigator");
  Object.defineProperty(globalThis, "navigator", { value: { locks: { request } }, configurable: true });
  const pair = ["a", "b"].map((tab) => new Tabs(name, tab, sharer));
  t.after(() => {
    for (const one of pair) one.stop();
    if (had) Object.defineProperty(globalThis, "navigator", had);
    else delete globalThis.navigator;
  });
  for (const one of pair) {
    one.start();
    await settled();
  }
  assert.deepEqual(pair.map(({ leading }) => leading), [true, false]);
  return pair;
}

test("a follower is told of a refusal as the leader is", async (t) => {
  const refusals = [new DualcastError("unknown-task", "there is no such", 404), new DualcastError("busy", "", 503, true), new DualcastError("forbidden-channel", "no", 0, false, ["room:b"])];
  const [, follower] = await group(t, () => Promise.reject(refusals.shift()));
  for (const { code, reason, status, retryable, message, channels } of [...refusals]) {
    const same = (error) => error instanceof DualcastError && assert.deepEqual({ ...error, message: error.message }, { name: "DualcastError", code, reason, status, retryable, message, channels }) === undefined;
    await assert.rejects(follower.ask("read", {}), same);
  }
});

test("a follower's command that cannot be posted is refused and forgotten", async (t) => {
  const carried = [];
  const [leader, follower] = await group(t, async (type) => (carried.push(type), { ok: true }));
  await assert.rejects(follower.ask("read", { ids() {} }), { name: "DualcastError", code: "bad-command" });
  leader.stop();
  await until(() => follower.leading, "the follower leads");
  await settled();
  assert.deepEqual(carried, [], "what was refused is not carried out later");
});
