// The client against a server process.

import assert from "node:assert/strict";
import { after, before, beforeEach, test } from "node:test";
import { DualcastClient, DualcastError } from "../../../clients/core/src/index.js";
import { Server, WebSocket, token, until } from "./support/server.js";

/** @type {Server} */
let server;
const open = new Set();

before(async () => {
  server = await Server.start();
});
beforeEach(async () => {
  await server.stage("fallback");
});
after(async () => {
  for (const client of open) client.disconnect();
  await server?.close();
});

const FAST = { spread: 50, settle: 300, probe: 200, probeCap: 1_000, first: 50, cap: 500, greet: 700, doubt: 700, answer: 700 };

function memory() {
  const kept = new Map();
  return { getItem: (key) => kept.get(key) ?? null, setItem: (key, value) => kept.set(key, value), removeItem: (key) => kept.delete(key), kept };
}

/** A client with what it was given. */
function client(user, options = {}) {
  const found = new DualcastClient({
    url: server.url,
    getToken: () => token(user, { channels: ["topic:*", "room:*", "presence:*"] }),
    WebSocket,
    storage: memory(),
    timing: FAST,
    ...options,
  });
  found.titles = [];
  found.statuses = [];
  found.on("notification", ({ data }) => found.titles.push(data.title));
  found.on("connection", ({ status, transport }) => found.statuses.push(transport ?? status));
  open.add(found);
  return found;
}

const live = (one, transport = "websocket") => until(() => one.status.transport === transport, `live on ${transport}: ${JSON.stringify(one.status)}`);
const user = (() => {
  let number = 0;
  return () => `u${(number += 1)}`;
})();

for (const transports of [["websocket"], ["fetch"]]) {
  test(`${transports}: delivers, and resumes after disconnect without a hole or a double`, async () => {
    const me = user();
    const one = client(me, { transports });
    one.connect();
    await live(one, transports[0] === "fetch" ? "sse" : "websocket");
    assert.equal(one.user, me);
    await server.notify(me, "a");
    await until(() => one.titles.length === 1);
    one.disconnect();
    assert.equal(one.status.status, "off");
    await server.notify(me, "b");
    one.connect();
    await until(() => one.titles.length === 2);
    await server.notify(me, "c");
    await until(() => one.titles.length === 3);
    assert.deepEqual(one.titles, ["a", "b", "c"]);
    one.disconnect();
  });
}

for (const auth of ["ticket", "query"]) {
  test(`a WebSocket with its token by ${auth}`, async () => {
    const me = user();
    const one = client(me, { auth, transports: ["websocket"] });
    one.connect();
    await live(one);
    await server.notify(me, "a");
    await until(() => one.titles.length === 1);
    one.disconnect();
    one.connect();
    await live(one);
    one.disconnect();
  });
}

test("what is no longer kept is told as a gap on both transports", async () => {
  const small = await Server.start({ "bus.history_entries": 5, "delivery.ring_entries": 5 });
  try {
    for (const transports of [["websocket"], ["fetch"]]) {
      const me = user();
      const one = client(me, { url: small.url, transports });
      const gaps = [];
      one.on("gap", (gap) => gaps.push(gap));
      one.connect();
      await until(() => one.status.status === "live");
      one.disconnect();
      const titles = Array.from({ length: 20 }, (_, number) => `n${number}`);
      await small.notifyAll(me, titles);
      one.connect();
      await until(() => one.titles.includes("n19") && gaps.length);
      const kept = one.titles.length;
      assert.ok(kept < 20);
      assert.deepEqual(one.titles, titles.slice(-kept));
      assert.deepEqual(gaps.map(({ channel, reason }) => [channel, reason]), [[`user:${me}`, "trimmed"]]);
      assert.equal(await gaps[0].backfill(), kept);
      assert.equal(one.titles.length, kept, "these are known");
      one.disconnect();
    }
  } finally {
    await small.close();
  }
});

test("another page of the same session resumes from storage", async () => {
  const me = user();
  const storage = memory();
  const one = client(me, { storage });
  one.connect();
  await live(one);
  await server.notify(me, "a");
  await until(() => one.titles.length === 1);
  one.disconnect();
  await server.notify(me, "b");
  const two = client(me, { storage });
  two.connect();
  await until(() => two.titles.length === 1);
  assert.deepEqual(two.titles, ["b"]);
  const other = client(user(), { storage });
  other.connect();
  await live(other);
  assert.deepEqual(other.titles, [], "positions are kept per user");
});

test("subscribe and unsubscribe on a socket and on a stream; a refused channel is taken back", async () => {
  for (const transports of [["websocket"], ["fetch"]]) {
    const one = client(user(), { transports });
    const got = [];
    one.on("price", ({ data }) => got.push(data));
    one.connect();
    await until(() => one.status.status === "live");
    await one.subscribe("topic:a,b", "topic:ü");
    const name = transports[0];
    await server.publish("topic:a,b", "price", `${name} 1`);
    await server.publish("topic:ü", "price", `${name} 2`);
    await until(() => got.length === 2, `two on ${name}`);
    await one.unsubscribe("topic:a,b");
    await server.publish("topic:a,b", "price", "not wanted");
    await server.publish("topic:ü", "price", `${name} 3`);
    await until(() => got.length === 3);
    assert.deepEqual(got, [1, 2, 3].map((number) => `${name} ${number}`));
    if (name === "websocket") {
      await assert.rejects(one.subscribe("task:not-mine"), (error) => error instanceof DualcastError && /forbidden/.test(error.code));
      assert.deepEqual(one.channels, ["topic:ü"]);
      assert.equal(one.status.status, "live");
    }
    one.disconnect();
  }
});

test("inbox: the same calls and answers on both transports, and the badge follows", async () => {
  for (const transports of [["websocket"], ["fetch"]]) {
    const me = user();
    const one = client(me, { transports });
    const badges = [];
    one.on("badge", (badge) => badges.push(badge.unread));
    one.connect();
    await until(() => one.badge !== null);
    for (const title of ["a", "b", "c"]) await server.notify(me, title);
    await until(() => one.badge?.unread === 3);
    const { notifications, inbox } = await one.inbox.list({ limit: 2 });
    assert.deepEqual(notifications.map(({ title }) => title), ["c", "b"]);
    assert.equal(inbox.unread, 3);
    const marked = await one.inbox.read([notifications[0].id, "nobody"]);
    assert.deepEqual([marked.ids, marked.unknown, marked.action], [[notifications[0].id], ["nobody"], "read"]);
    assert.equal(one.badge.unread, 2);
    assert.equal((await one.inbox.archive([notifications[1].id])).action, "archived");
    assert.equal((await one.inbox.count()).inbox.unread, 1);
    assert.equal((await one.inbox.delete("all")).action, "deleted");
    await until(() => one.badge.unread === 0);
    await assert.rejects(one.request("read", {}), DualcastError);
    one.disconnect();
  }
});

test("commands of one who is away wait, and go out in order", async () => {
  const me = user();
  const one = client(me);
  await server.notify(me, "a");
  const asked = one.inbox.list();
  const marked = asked.then(({ notifications }) => one.inbox.read([notifications[0].id]));
  one.connect();
  assert.equal((await marked).inbox.unread, 0);
  const full = client(me);
  const all = Array.from({ length: 101 }, () => full.inbox.count());
  await assert.rejects(all.at(-1), { code: "outbox-full" });
  full.connect();
  full.disconnect();
  for (const result of await Promise.allSettled(all.slice(0, 100))) assert.equal(result.reason.code, "disconnected");
});

test("no token: the client stops, and a new one starts it again", async () => {
  let value = "nonsense";
  const me = user();
  const one = client(me, { getToken: () => value });
  one.connect();
  await until(() => one.status.status === "stopped");
  assert.equal(one.status.stopped.code, 4001);
  value = token(me);
  one.renew();
  await live(one);
});

test("a token that expires is renewed on the living connection", async () => {
  for (const transports of [["websocket"], ["fetch"]]) {
    const me = user();
    let calls = 0;
    const one = client(me, { transports, getToken: () => token(me, { lifeS: (calls += 1) === 1 ? 3 : 600 }) });
    const closes = [];
    one.options.metrics = (name, _value, labels) => name === "closed" && closes.push(labels.reason);
    one.connect();
    await until(() => one.status.status === "live");
    await until(() => calls === 2);
    await server.notify(me, "a");
    await until(() => one.titles.length === 1);
    assert.deepEqual(closes, []);
    one.disconnect();
  }
});

test("stages while open: sse → shadow → fallback → websocket, every publication once and in order", async () => {
  const me = user();
  await server.stage("sse");
  const one = client(me, { parityMs: 400, transports: ["websocket", "fetch"] });
  const reports = [];
  one.on("parity", (report) => reports.push(report));
  one.connect();
  await live(one, "sse");
  const sent = [];
  const send = async (count) => {
    for (let i = 0; i < count; i += 1) {
      sent.push(`n${sent.length}`);
      await server.notify(me, sent.at(-1), { store: false });
    }
  };
  await send(3);
  await server.stage("shadow");
  await send(5);
  await until(() => one.status.stage === "shadow");
  const agrees = ({ sse, websocket }) => sse.ids.length > 0 && sse.ids.join() === websocket.ids.join();
  while (!reports.some(agrees)) {
    assert.ok(sent.length < 500, JSON.stringify(reports));
    await send(1);
    await new Promise((done) => setTimeout(done, 50));
  }
  await server.stage("fallback");
  await send(5);
  await live(one);
  await send(5);
  await server.stage("websocket");
  await send(3);
  await until(() => one.titles.length >= sent.length);
  assert.deepEqual(one.titles, sent);
  const after = one.statuses.slice(one.statuses.indexOf("sse"));
  assert.deepEqual([...new Set(after)], ["sse", "websocket"], "never without a connection");
});

test("S1.7 S4.5 a server killed and started again, and one that drains: nothing missing or doubled", async () => {
  const me = user();
  const others = [client(me), client(me, { transports: ["fetch"] })];
  for (const one of others) one.connect();
  for (const one of others) await until(() => one.status.status === "live");
  const titles = Array.from({ length: 60 }, (_, i) => `n${i}`);
  await server.notifyAll(me, titles.slice(0, 20));
  await server.down("SIGKILL");
  await server.up();
  await server.notifyAll(me, titles.slice(20, 40));
  for (const one of others) await until(() => one.titles.length >= 40, `${one.titles.length} of 40`);
  await server.down("SIGTERM");
  await server.up();
  await server.notifyAll(me, titles.slice(40));
  for (const one of others) await until(() => one.titles.length >= 60, `${one.titles.length} of 60`);
  for (const one of others) assert.deepEqual(one.titles, titles);
});

// Browsers and `ws` drop a handshake whose answer selects none of the subprotocols they offered, so they see 1006.
test("a refusal reaches a client that offered subprotocols", async () => {
  await server.stage("sse");
  const code = await new Promise((done) => {
    const socket = new WebSocket(server.url.replace("http", "ws") + "/v1/socket", ["dualcast", "bearer." + token("alice")]);
    socket.onerror = () => {};
    socket.onclose = (event) => done(event.code);
  });
  assert.equal(code, 4010);
});
