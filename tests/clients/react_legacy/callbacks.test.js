// What an application does from within a callback, or at the wrong moment, on a socket of the older contracts.

import assert from "node:assert/strict";
import { test } from "node:test";
import { ReadMarks } from "../../../clients/react/src/legacy/chat/read_marks.js";
import { PageSocket } from "../../../clients/react/src/legacy/page_socket.js";
import { AuthService, ChatApiError, RoomsClient, definePages, defineFeature } from "../../../clients/react/src/legacy/index.js";
import { Timers } from "../../../clients/core/src/timers.js";
import { FakeClock, fakeSockets } from "./support/fakes.js";

const turn = () => new Promise((done) => setImmediate(done));

function rooms() {
  const clock = new FakeClock();
  const Socket = fakeSockets();
  const client = new RoomsClient({ base: () => "ws://push.example.com", userId: "u", token: "t", clock, WebSocket: Socket });
  const asked = () => Socket.last.frames.filter(({ room }) => room).map(({ type, room }) => `${type} ${room}`);
  return { client, clock, Socket, asked };
}

/** The errors that were reported as uncaught while `run` ran. */
async function uncaught(run) {
  const own = process.listeners("uncaughtException");
  const found = [];
  process.removeAllListeners("uncaughtException").on("uncaughtException", ({ message }) => found.push(message));
  await run();
  await turn();
  process.removeAllListeners("uncaughtException");
  for (const one of own) process.on("uncaughtException", one);
  return found;
}

test("a connection that is asked for when the last one is told to be over is made", () => {
  const { client, clock, Socket } = rooms();
  client.connect();
  Socket.last.greet();
  const off = client.onDisconnect(client.connect);
  client.disconnect();
  assert.deepEqual([Socket.made.length, Socket.made[0].closes.length, client.getSnapshot().connectionStatus], [2, 1, "connecting"]);
  off();
  Socket.last.greet();
  assert.equal(client.getSnapshot().isConnected, true);
  client.disconnect();
  assert.deepEqual(clock.waits, []);
});

test("a room that is joined or left between the greeting and the first answer is joined or left", () => {
  const { client, Socket, asked } = rooms();
  client.subscribe("a");
  const leave = client.subscribe("b");
  client.connect();
  Socket.last.open();
  client.subscribe("c");
  leave();
  Socket.last.say({ type: "connection_established" });
  assert.deepEqual(asked(), ["subscribe a", "subscribe b", "subscribe c", "unsubscribe b"]);
  client.disconnect();
});

test("a feature that throws, at its beginning or end, keeps no socket open and no other feature from its end", async () => {
  const clock = new FakeClock();
  const Socket = fakeSockets();
  const pages = {};
  definePages({ "/x": { requireAuth: false, features: ["bad", "worse", "good"] } }, pages);
  const told = [];
  const offs = [
    defineFeature("bad", () => {
      throw new Error("begin");
    }),
    defineFeature("worse", () => () => {
      throw new Error("end");
    }),
    defineFeature("good", () => () => told.push("ended")),
  ];
  const scope = { location: { pathname: "/x" } };
  const auth = new AuthService({ read: () => "" });
  const socket = new PageSocket({ url: "ws://push.example.com", pages, scope, auth, clock, WebSocket: Socket });
  const errors = await uncaught(async () => {
    const leave = socket.use();
    clock.pass(0);
    Socket.last.greet();
    scope.location.pathname = "/y";
    auth.changed();
    assert.deepEqual([told, Socket.last.closes.length, socket.getSnapshot().reason], [["ended"], 1, "disabled"]);
    leave();
    clock.pass(0);
  });
  assert.deepEqual(errors, ["begin", "end"]);
  for (const off of offs) off();
});

test("what was read is told again after a failure, but not for ever where it is refused", async () => {
  const clock = new FakeClock();
  const answers = [new ChatApiError(0, ""), new ChatApiError(503, ""), new ChatApiError(429, ""), new ChatApiError(403, "")];
  const told = [];
  const marks = new ReadMarks(async (ids) => {
    told.push(ids.join());
    const error = answers.shift();
    if (error) throw error;
  }, new Timers(clock));
  marks.add(["m1"]);
  for (let n = 0; n < 10; n += 1) {
    clock.pass(5_000);
    await turn();
  }
  assert.deepEqual(told, ["m1", "m1", "m1", "m1"]);
  assert.deepEqual(clock.waits, []);
  marks.add(["m2"]);
  clock.pass(5_000);
  await turn();
  assert.equal(told.at(-1), "m2");
  marks.stop();
});
