// Channels that may not be had: named by the server, left out by the client, told to whoever asked for them. And what a
// page that is reloaded while a gap is being filled still gets.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { DualcastEventSource } from "../../../clients/core/src/event_source.js";
import { DualcastClient } from "../../../clients/core/src/index.js";
import { tabs } from "../../../clients/core/src/tabs.js";
import { Locks } from "./support/locks.js";
import { Server, WebSocket, token, until } from "./support/server.js";
import { disconnectAll, twoLinks } from "./support/two_links.js";

/** @type {Server} */
let server;
const open = [];
before(async () => {
  server = await Server.start();
  await server.stage("fallback");
});
after(async () => {
  disconnectAll();
  for (const one of open) one.disconnect?.() ?? one.close?.();
  await server?.close();
});
// Node has no Web Locks.
const locks = new Locks();
Object.defineProperty(globalThis, "navigator", { value: { locks }, configurable: true });

/** Unsubscribed channels and states of a client, in order. */
function watched(client) {
  const told = [];
  client.on("unsubscribed", ({ channels, reason }) => told.push([reason, ...channels]));
  client.on("connection", ({ status }) => status === "stopped" && told.push(status));
  return told;
}

const bye = (channels) => ({ type: "bye", code: 4003, reason: "forbidden-channel", channels });
const wanted = ({ url }) => url.searchParams.getAll("channel");

test("channels that are refused at the handshake are left out, and the others are had", async () => {
  const w = twoLinks({ transports: ["websocket"], channels: ["topic:a", "room:b", "topic:c"] });
  const told = watched(w.client);
  w.client.connect();
  const one = await w.socket();
  one.onopen();
  one.frame(bye(["room:b"]));
  one.end(4003, "forbidden-channel");
  const two = await w.socket(2);
  assert.deepEqual(wanted(two), ["topic:a", "topic:c"]);
  two.welcome();
  await until(() => w.client.status.status === "live");
  assert.deepEqual(told, [["forbidden-channel", "room:b"]]);
  assert.deepEqual(w.client.channels, ["topic:a", "topic:c"]);
});

test("who waits for a channel that is refused is told; who waits for another has it", async () => {
  const w = twoLinks({ transports: ["websocket"] });
  w.client.connect();
  const one = await w.socket();
  const [bad, good] = [w.client.subscribe("topic:x", "room:b"), w.client.subscribe("topic:c")];
  const refused = assert.rejects(bad, { code: "forbidden-channel", channels: ["room:b"] });
  one.onopen();
  one.frame(bye(["room:b"]));
  await refused;
  const two = await w.socket(2);
  assert.deepEqual(wanted(two), ["topic:c"], "a subscription is all or nothing");
  two.welcome();
  // What waited for the welcome is asked for by name where the handshake was begun without it.
  await until(() => two.sent.some(({ type }) => type === "subscribe"));
  for (const { ref, channels } of two.sent.filter(({ type }) => type === "subscribe")) two.frame({ type: "subscribed", ref, channels });
  await good;
  assert.deepEqual(w.client.channels, ["topic:c"]);
});

test("a server that names what was not asked for is not asked in a loop", async () => {
  const w = twoLinks({ transports: ["websocket"], timing: { first: 3_600_000, cap: 3_600_000 } });
  w.client.connect();
  (await w.socket()).frame(bye(["room:other"]));
  (await w.socket(2)).frame(bye(["room:other"]));
  await until(() => w.client.status.status === "waiting");
  assert.equal(w.sockets.length, 2);
});

test("the channel of one tab that is refused costs the other tabs nothing, and none its other channels", async () => {
  const options = { transports: ["websocket"], share: tabs(`refused-${process.pid}`), getToken: undefined };
  const first = twoLinks({ ...options, channels: ["topic:a"] });
  const told = watched(first.client);
  const socket = await first.live();
  const second = twoLinks({ ...options, channels: ["topic:b", "room:closed"] });
  const toldSecond = watched(second.client);
  second.client.connect();
  const asked = () => socket.sent.filter(({ type }) => type === "subscribe");
  await until(() => asked().length === 1);
  const error = { type: "error", code: "forbidden-channel", reason: "no", channels: ["room:closed"] };
  socket.frame({ ...error, ref: asked()[0].ref });
  await until(() => asked().length === 2);
  assert.deepEqual(asked()[1].channels, ["topic:b"]);
  socket.frame({ type: "subscribed", ref: asked()[1].ref, channels: ["topic:b"] });
  await until(() => toldSecond.length === 1);
  assert.deepEqual([told, toldSecond], [[["forbidden-channel", "room:closed"]], [["forbidden-channel", "room:closed"]]]);
  assert.deepEqual([first.client.channels, second.client.channels], [["topic:a", "topic:b"], ["topic:b"]]);
  socket.end(1006);
  assert.deepEqual(wanted(await first.socket(2)), ["topic:a", "topic:b"]);
  assert.equal(second.sockets.length, 0, "it follows");
});

test("what other tabs want is asked for again where that failed in passing", async () => {
  const options = { transports: ["websocket"], share: tabs(`passing-${process.pid}`), getToken: undefined };
  const first = twoLinks(options);
  const socket = await first.live();
  const second = twoLinks({ ...options, channels: ["topic:b"] });
  second.client.connect();
  const asked = () => socket.sent.filter(({ type }) => type === "subscribe");
  await until(() => asked().length === 1);
  socket.frame({ type: "error", ref: asked()[0].ref, code: "bus-unavailable", reason: "away" });
  await until(() => asked().length === 2);
  assert.deepEqual(asked()[1].channels, ["topic:b"]);
});

for (const transports of [["websocket"], ["fetch"]]) {
  test(`a tab that wants more than a session may have costs the others nothing: ${transports}`, async () => {
    const options = { url: server.url, getToken: () => token("many", { channels: ["topic:*"] }), WebSocket, storage: null, transports };
    const many = (tab) => Array.from({ length: 80 }, (_, number) => `topic:${tab}${number}`);
    const share = tabs(`many-${transports}-${process.pid}`);
    const made = ["a", "b"].map((tab) => new DualcastClient({ ...options, share, channels: many(tab) }));
    open.push(...made);
    const [first, second] = made;
    first.connect();
    await until(() => first.status.status === "live");
    const told = watched(second);
    second.connect();
    const refusals = () => told.filter((one) => one !== "stopped"); // a stream ends by it, and begins again
    await until(() => refusals().length);
    assert.deepEqual(refusals(), [["too-many-channels", ...many("b")]]);
    await until(() => first.status.status === "live" && first.channels.length === 80);
    assert.deepEqual([first.channels, second.channels], [many("a"), []]);
  });
}

test("over either transport a server names them, and the client goes on without", async () => {
  for (const transports of [["websocket"], ["fetch"]]) {
    const getToken = () => token("alice", { channels: ["topic:*"] });
    const channels = ["room:closed", "topic:open", "task:hers"];
    const one = new DualcastClient({ url: server.url, getToken, WebSocket, storage: null, transports, channels });
    open.push(one);
    const told = watched(one);
    const heard = [];
    one.on("note", ({ data }) => heard.push(data));
    one.connect();
    await until(() => one.status.status === "live");
    assert.deepEqual(told, [["forbidden-channel", "room:closed", "task:hers"]]);
    await server.publish("topic:open", "note", transports[0]);
    await until(() => heard.length);
    assert.deepEqual(heard, transports);
    await assert.rejects(one.subscribe("topic:b", "room:closed"), { code: "forbidden-channel", channels: ["room:closed"] });
    await until(() => one.status.status === "live");
    assert.deepEqual(one.channels, ["topic:open"]);
  }
});

test("an EventSource with a channel that may not be had is refused for good, as the stream is", async () => {
  const url = `${server.url}/v1/stream?channel=room:closed&token=${token("alice")}`;
  for (const transports of [["websocket", "fetch"], ["fetch"]]) {
    const told = [];
    const one = new DualcastEventSource(url, { WebSocket, transports });
    open.push(one);
    for (const type of ["open", "bye", "unsubscribed", "error"]) one.addEventListener(type, () => told.push(type));
    await until(() => one.readyState === 2);
    assert.deepEqual(told, ["error"]);
  }
});

test("an EventSource with a ticket on an older page's URL is let in at once", async () => {
  const { ticket } = await server.call("POST", "/v1/tickets", { transport: "sse" }, token("alice"));
  const answers = [];
  const fetcher = async (url, init) => {
    const answer = await fetch(url, init);
    answers.push([new URL(url).pathname, answer.status]);
    return answer;
  };
  const one = new DualcastEventSource(`${server.url}/api/notifications/stream?ticket=${ticket}`, { fetch: fetcher, WebSocket });
  open.push(one);
  const titles = [];
  one.addEventListener("notification", ({ data }) => titles.push(JSON.parse(data).title));
  await until(() => one.readyState === 1);
  assert.deepEqual(answers, [["/v1/stream", 200]]);
  await server.notify("alice", "hello");
  await until(() => titles.length);
  assert.deepEqual(titles, ["hello"]);
});

test("a page that is reloaded while what came late is being read asks for it again", async () => {
  const kept = new Map();
  const storage = { getItem: (key) => kept.get(key) ?? null, setItem: (key, value) => kept.set(key, value), removeItem: (key) => kept.delete(key) };
  const options = { transports: ["websocket"], storage, user: "alice" };
  const path = "/v1/channels/user:alice/history";
  const gap = { type: "gap", channel: "user:alice", after: "e-2", cursor: "e-9", reason: "late", history_url: `${path}?after=e-2` };
  const before = twoLinks(options);
  before.answers[path] = () => new Promise(() => {}); // the page goes before this is answered
  const one = await before.live();
  one.publication(2);
  one.publication(9);
  one.frame(gap);
  await until(() => before.asked.length === 1);
  before.client.disconnect(); // as `pagehide` does, it keeps the position

  const page = twoLinks(options);
  page.answers[path] = () => ({ channel: "user:alice", publications: [{ id: "p3", event: "note", time: "", data: 3 }], next: "e-3", more: false });
  page.client.connect();
  const two = await page.socket();
  assert.equal(two.url.searchParams.get("cursor"), "e-9");
  two.welcome();
  await until(() => page.heard.length === 1);
  assert.deepEqual([page.heard, page.asked], [[3], [`${path}?after=e-2`]]);
  page.client.disconnect();

  const third = twoLinks(options);
  await third.live();
  assert.deepEqual([...kept.keys()].filter((key) => key.includes("gaps:")), [], "what was read is owed no more");
  assert.equal(third.asked.length, 0);
});
