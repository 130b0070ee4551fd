// The client of one socket, against sockets that do what the test says.

import assert from "node:assert/strict";
import { test } from "node:test";
import { ConversationsClient, RoomsClient } from "../../../clients/react/src/legacy/index.js";
import { FakeClock, fakeSockets } from "./support/fakes.js";

const CONFIG = { connectionTimeout: 20_000, heartbeatInterval: 45_000, reconnectInterval: 2_000, maxReconnectDelay: 30_000 };

function made(Client, options = {}) {
  const clock = new FakeClock();
  const Socket = fakeSockets();
  const client = new Client({
    base: () => "ws://push.example.com",
    userId: "u/1",
    token: Client === ConversationsClient ? () => "t+1" : "t+1",
    connectionId: "c1",
    device: { deviceType: "mobile", deviceId: "d1" },
    ...(Client === ConversationsClient && { config: CONFIG }),
    clock,
    WebSocket: Socket,
    ...options,
  });
  const told = [];
  client.onConnect(() => told.push("connect"));
  client.onDisconnect(({ code }) => told.push(code));
  client.handlers.onAny(({ type }) => told.push(type));
  const status = () => [client.getSnapshot().connectionStatus, client.getSnapshot().reason];
  return { client, clock, Socket, told, status };
}
const rooms = (options) => made(RoomsClient, options);
const chat = (options) => made(ConversationsClient, options);

test("S3.8 S3.99 connected is a socket on which the server has said something", () => {
  const { client, Socket, told, status } = rooms();
  assert.deepEqual([Socket.made.length, ...status()], [0, "disconnected", ""]);
  client.connect();
  client.connect();
  assert.equal(Socket.made.length, 1);
  assert.equal(Socket.last.url, "ws://push.example.com/api/v1/ws/u%2F1?token=t%2B1");
  assert.deepEqual(status(), ["connecting", ""]);
  Socket.last.open();
  assert.deepEqual(status(), ["connecting", ""]);
  assert.deepEqual(Socket.last.frames, [{ type: "get_stats" }, { type: "ping" }]);
  const before = client.getSnapshot();
  Socket.last.say({ type: "connection_established", message: "hello" });
  assert.deepEqual(status(), ["connected", ""]);
  assert.deepEqual(told, ["connect", "connection_established"]);
  assert.equal(before.isConnected, false, "what was read stays as it was");
  assert.equal(client.getSnapshot().lastMessage.data.message, "hello");
  client.disconnect();
  assert.deepEqual(Socket.last.closes, [[1000, "Manual disconnect"]]);
  assert.deepEqual([...told.slice(2), ...status()], [1000, "disconnected", "manual"]);
  Socket.last.end(1000);
  assert.equal(told.length, 3, "a socket that was left is heard no more");
});

test("S3.6 S3.97 S3.98 conversations: fifteen attempts, later each time, then it is an error until connect()", () => {
  const { client, clock, Socket, told, status } = chat();
  client.connect();
  assert.equal(Socket.last.url, "ws://push.example.com/api/v1/ws?token=t%2B1&connectionId=c1&deviceType=mobile&deviceId=d1");
  Socket.last.greet();
  const waits = [];
  Socket.last.end(1006);
  while (clock.waits.length) {
    assert.deepEqual(status(), ["reconnecting", ""]);
    waits.push(clock.waits[0]);
    clock.pass(clock.waits[0]);
    Socket.last.open(); // opens and is thrown out again: the attempts go on counting
    Socket.last.end(1006);
  }
  assert.deepEqual(waits, [2300, 4600, 9200, 18400, ...Array(11).fill(30000)]);
  assert.deepEqual(status(), ["error", "exhausted"]);
  assert.deepEqual(told, ["connect", "connection_established", 1006]);
  client.connect();
  assert.deepEqual(status(), ["connecting", ""]);
  Socket.last.greet();
  assert.deepEqual(status(), ["connected", ""]);
});

test("S0.25 rooms: five attempts, every three seconds; one that works counts anew; rooms are joined again", () => {
  const { client, clock, Socket } = rooms();
  client.connect();
  Socket.last.greet();
  const leave = client.subscribe("notifications");
  const leaveAgain = client.subscribe("notifications");
  client.subscribe("news");
  assert.deepEqual(Socket.last.frames.slice(2), ["notifications", "news"].map((room) => ({ type: "subscribe", room })));
  leave();
  leave();
  assert.equal(Socket.last.frames.length, 4, "somebody else is still in it");
  leaveAgain();
  assert.deepEqual(Socket.last.frames.at(-1), { type: "unsubscribe", room: "notifications" });
  for (let attempt = 0; attempt < 3; attempt += 1) {
    Socket.last.end(1012);
    clock.pass(2_999);
    assert.equal(Socket.made.length, attempt + 1);
    clock.pass(1);
  }
  Socket.last.greet();
  assert.deepEqual(Socket.last.frames.slice(0, 2), [{ type: "get_stats" }, { type: "subscribe", room: "news" }]);
  for (let attempt = 0; attempt < 9; attempt += 1) {
    Socket.last.end(1012);
    clock.pass(3_000);
  }
  assert.equal(Socket.made.length, 4 + 5);
});

test("S3.8 no attempt comes back where it would end the same way", () => {
  const ends = { 4001: "refused", 4003: "refused", 1008: "refused", 4409: "replaced", 1000: "closed" };
  for (const [code, reason] of Object.entries(ends)) {
    const { client, clock, Socket, status } = chat();
    client.connect();
    Socket.last.open();
    Socket.last.end(Number(code));
    assert.deepEqual(status(), [code === "1000" ? "disconnected" : "error", reason]);
    assert.deepEqual([Socket.made.length, clock.waits], [1, []]);
  }
  for (const code of [1001, 1011, 1012, 1013, 4000, 4002, 1006]) {
    const { client, clock, Socket } = chat();
    client.connect();
    Socket.last.end(code);
    clock.pass(2_300);
    assert.equal(Socket.made.length, 2, code);
  }
});

test("a renewed token is for the next attempt, and ends a refusal", () => {
  const { client, clock, Socket } = rooms();
  client.connect();
  Socket.last.greet();
  client.renew("t2");
  assert.equal(Socket.made.length, 1);
  Socket.last.end(1012);
  clock.pass(3_000);
  assert.match(Socket.last.url, /token=t2$/);
  Socket.last.end(4001);
  client.renew("t2");
  assert.equal(Socket.made.length, 2);
  client.renew("t3");
  assert.match(Socket.last.url, /token=t3$/);
});

test("S3.8 a socket that opens and carries nothing, or never opens, is given up after 20 s", () => {
  for (const opens of [true, false]) {
    const { client, clock, Socket, status } = chat();
    client.connect();
    if (opens) Socket.last.open();
    clock.pass(20_000);
    assert.deepEqual([Socket.last.closes.length, ...status()], [1, "reconnecting", ""]);
  }
});

test("S3.9 a beat is a message with a time, its answer is none; a server that falls silent is left", () => {
  const { client, clock, Socket, told } = chat();
  client.connect();
  Socket.last.greet();
  Socket.last.say({ type: "heartbeat", timestamp: 1 });
  clock.pass(45_000);
  assert.deepEqual(Socket.last.frames.map(({ type, timestamp }) => [type, typeof timestamp]), Array(2).fill(["heartbeat", "number"]));
  assert.equal(told.includes("heartbeat"), false);
  clock.pass(90_000);
  assert.equal(told.at(-1), 1006);
  clock.pass(2_300);
  assert.equal(Socket.made.length, 2);
  Socket.last.greet();
  Socket.last.broken = true;
  clock.pass(45_000);
  assert.equal(told.filter((one) => one === 1006).length, 2, "a failed beat is no harmless one");
});

test("S3.12 what is sent without a connection waits, in order, but no beat and no typing", () => {
  const { client, clock, Socket } = chat({ queueLimit: 3 });
  assert.equal(client.send({ n: 0 }), false, "nobody asked for a connection");
  client.connect();
  assert.equal(client.send({ n: 1 }), true);
  Socket.last.open();
  for (const stale of [{ type: "ping" }, "ping", { type: "heartbeat" }, { action: "typing" }]) assert.equal(client.send(stale), false);
  assert.deepEqual([client.send({ n: 2 }), client.send({ n: 3 }), client.send({ n: 4 })], [true, true, false]);
  Socket.last.say({ type: "connected" });
  const numbers = () => Socket.last.frames.map(({ n }) => n).filter(Boolean);
  assert.deepEqual(numbers(), [1, 2, 3]);
  assert.equal(client.send({ action: "typing" }), true);
  Socket.last.end();
  client.send({ n: 5 });
  client.disconnect();
  client.connect();
  clock.pass(0);
  Socket.last.greet();
  assert.deepEqual(numbers(), [], "what waited was dropped by disconnect()");
  assert.equal(client.send({ n: 1n }), false);
});

test("no timer, no listener and no socket is left behind", (t) => {
  const listeners = new Set();
  globalThis.addEventListener = (name, listener) => listeners.add(listener);
  globalThis.removeEventListener = (name, listener) => listeners.delete(listener);
  t.after(() => {
    delete globalThis.addEventListener;
    delete globalThis.removeEventListener;
  });
  const steps = [(socket) => socket, (socket) => socket.open(), (socket) => socket.greet(), (socket) => socket.end()];
  for (const step of steps) {
    const { client, clock, Socket } = chat();
    client.connect();
    assert.equal(listeners.size, 1);
    step(Socket.last);
    client.disconnect();
    assert.equal(listeners.size, 0);
    if (step === steps[0]) {
      assert.deepEqual(Socket.last.closes, [], "a browser would write its address to the console");
      Socket.last.open();
    }
    assert.deepEqual(clock.waits, []);
    assert.ok(Socket.last.readyState >= 2);
  }
  const { client, clock, Socket } = chat();
  client.connect();
  client.disconnect();
  clock.pass(20_000);
  assert.equal(Socket.last.closes.length, 1, "one that never opens is not kept for ever");
  assert.deepEqual(clock.waits, []);
});

test("the network that comes back ends the wait", (t) => {
  t.after(() => {
    delete globalThis.addEventListener;
    delete globalThis.removeEventListener;
  });
  const page = new EventTarget();
  globalThis.addEventListener = page.addEventListener.bind(page);
  globalThis.removeEventListener = page.removeEventListener.bind(page);
  const { client, Socket } = chat();
  client.connect();
  Socket.last.end();
  page.dispatchEvent(new Event("online"));
  assert.equal(Socket.made.length, 2);
  client.disconnect();
});

test("an address to which nothing can be opened is an error, not a loop", () => {
  for (const base of [() => "no address", () => new URL("ws://[").href]) {
    const { client, clock, status } = chat({ base });
    client.connect();
    assert.deepEqual([...status(), clock.waits], ["error", "address", []]);
  }
});
