// `ws` by hand: the native protocol and the older ones, as a program without our client speaks them.

import assert from "node:assert/strict";
import { once } from "node:events";
import { after, before, test } from "node:test";
import { Server, WebSocket, token, until } from "../core/support/server.js";
import { Cable } from "./support/cable.js";

const MAX_FRAME = 65_536;

/** @type {Server} */
let server;
/** @type {Cable} */
let cable;
const open = new Set();

before(async () => {
  server = await Server.start({ "delivery.ws_heartbeat_s": 5 });
  cable = await Cable.to(server.port);
});
after(async () => {
  for (const socket of open) socket.terminate();
  await cable?.close();
  await server?.close();
});

/** A socket with what it got: `frames`, `pings` of the server, `closed`: [code, reason]. */
function dial(path, protocols = [], options = {}) {
  const socket = new WebSocket(`ws://${cable.host}${path}`, protocols, options);
  Object.assign(socket, { frames: [], pings: 0, pongs: [], closed: null });
  socket.on("message", (data, binary) => {
    assert.equal(binary, false);
    socket.frames.push(JSON.parse(data));
  });
  socket.on("ping", () => (socket.pings += 1));
  socket.on("pong", (data) => socket.pongs.push(String(data)));
  socket.on("close", (code, reason) => (socket.closed = [code, String(reason)]));
  socket.on("error", () => {}); // `close` follows
  open.add(socket);
  return socket;
}

const native = (user, path = "/v1/socket", options = {}) => dial(path, ["dualcast", `bearer.${token(user, { channels: ["topic:*"] })}`], options);
const of = (socket, type) => socket.frames.filter((frame) => frame.type === type);
const first = async (socket, type) => {
  await until(() => of(socket, type).length || socket.closed, `a frame ${type}`);
  assert.ok(of(socket, type).length, `${type}: closed by ${socket.closed}`);
  return of(socket, type)[0];
};
const say = (socket, frame) => socket.send(JSON.stringify(frame));
const titles = (socket) => of(socket, "publication").map(({ data }) => data.title);
const closing = async (socket) => {
  await until(() => socket.closed, "it closes");
  return socket.closed;
};

test("the token as a subprotocol, commands, and pings of both sides", async () => {
  const socket = native("alice");
  const welcome = await first(socket, "welcome");
  assert.equal(socket.protocol, "dualcast", "the token is not sent back");
  assert.deepEqual([welcome.user, welcome.channels, welcome.heartbeat_s], ["alice", ["user:alice", "all"], 5]);
  say(socket, { type: "ping", ref: "r1" });
  assert.deepEqual(await first(socket, "pong"), { type: "pong", ref: "r1", cursor: welcome.cursor });
  say(socket, { type: "subscribe", ref: "r2", channels: ["topic:news"] });
  assert.equal((await first(socket, "subscribed")).ref, "r2");
  socket.ping("are you there");
  await until(() => socket.pongs.length, "a pong");
  assert.deepEqual(socket.pongs, ["are you there"], "RFC 6455 section 5.5.3");
  await until(() => socket.pings > 1, "pings of the server");
  say(socket, { type: "nonsense" });
  socket.send(Buffer.from([1, 2, 3]));
  await until(() => of(socket, "error").length === 2, "refusals after which it stays open");
  say(socket, { type: "unsubscribe", ref: "r4", channels: ["topic:news"] });
  assert.equal((await first(socket, "unsubscribed")).ref, "r4");
});

for (const [name, path] of [["as the first command", (_cursor) => "/v1/socket"], ["in the query", (cursor) => `/v1/socket?cursor=${cursor}`]]) {
  test(`resumes ${name}, after a cut and after a restart`, async () => {
    const user = `resumes ${name}`;
    const sent = Array.from({ length: 30 }, (_, number) => `n${number}`);
    const got = [];
    let cursor = "";
    for (const from of [0, 10, 20]) {
      const socket = native(user, path(cursor));
      if (cursor && !path(cursor).includes("cursor")) socket.on("open", () => say(socket, { type: "resume", cursor }));
      if (from < 20) await first(socket, "welcome"); // the last one is late for all of it
      if (from < 20) await server.notifyAll(user, sent.slice(from, from + 10));
      await until(() => titles(socket).length === 10, "ten of them");
      got.push(...of(socket, "publication"));
      cursor = got.at(-1).cursor;
      if (from === 0) cable.cut();
      else if (from === 10) {
        await server.down();
        await server.up();
        await server.notifyAll(user, sent.slice(20));
      } else socket.close(1000);
      const [code] = await closing(socket);
      assert.equal(code, from < 20 ? 1006 : 1000);
    }
    assert.deepEqual(got.map(({ data }) => data.title), sent);
    assert.equal(new Set(got.map(({ id }) => id)).size, sent.length);
  });
}

test("fragments, and messages as large as they may be", async () => {
  const socket = native("large");
  await first(socket, "welcome");
  const text = '{"type":"ping","ref":"in parts ✓"}';
  const bytes = Buffer.from(text);
  const middle = bytes.indexOf(0x9c); // within a character
  socket.send(bytes.subarray(0, 5), { fin: false, binary: false });
  socket.ping(); // may come between fragments
  socket.send(bytes.subarray(5, middle), { fin: false, binary: false });
  socket.send(bytes.subarray(middle), { fin: true, binary: false });
  assert.equal((await first(socket, "pong")).ref, "in parts ✓");
  socket.send('{"type":"ping","ref":"large"}'.padEnd(MAX_FRAME));
  await until(() => of(socket, "pong").length === 2, "an answer to 64 KiB");
  const data = { text: "世".repeat(10_000) }; // 30 kB, in one frame with a length of 16 bits
  await server.publish("user:large", "bulk", data);
  assert.deepEqual((await first(socket, "publication")).data, data);
  socket.send('{"type":"ping"}'.padEnd(MAX_FRAME + 1));
  assert.equal((await closing(socket))[0], 4005);
});

test("close codes say what was wrong, both ways", async () => {
  const bad = dial("/v1/socket", ["dualcast", "bearer.bad"]);
  assert.deepEqual(await closing(bad), [4001, "unauthorized"]);
  assert.equal((await closing(native("bob", "/v1/socket?channel=room:closed")))[0], 4003);
  assert.equal((await closing(native("bob", "/v1/socket?channel=nonsense")))[0], 4000);
  const bare = native("bob");
  await first(bare, "welcome");
  bare._socket.write(Buffer.from([0x81, 0x02, 0x7b, 0x7d])); // without a mask: RFC 6455 sections 5.1, 7.4.1
  assert.equal((await closing(bare))[0], 1002);
  const leaving = native("bob");
  await first(leaving, "welcome");
  leaving.close(4321, "my own");
  assert.equal((await closing(leaving))[0], 4321, "RFC 6455 section 5.5.1: the code comes back");
  const draining = native("bob");
  await first(draining, "welcome");
  await server.down("SIGTERM");
  assert.equal((await closing(draining))[0], 4100);
  assert.equal((await first(draining, "bye")).code, 4100);
  await server.up();
});

test("permessage-deflate: declined by default, accepted where it is switched on", async () => {
  const plain = native("zip", "/v1/socket", { perMessageDeflate: true });
  await first(plain, "welcome");
  assert.equal(plain.extensions, "");
  plain.terminate();
  await server.down();
  server.settings = { ...server.settings, "delivery.compression": true };
  await server.up();
  const threshold = 0; // compresses everything
  const offers = [{ threshold }, { threshold, clientMaxWindowBits: true, serverMaxWindowBits: 15 }, { threshold, serverNoContextTakeover: true, clientNoContextTakeover: true }];
  for (const perMessageDeflate of offers) {
    const socket = native("zip", "/v1/socket", { perMessageDeflate });
    const [answer] = await once(socket, "upgrade");
    await first(socket, "welcome");
    assert.match(socket.extensions, /^permessage-deflate/, JSON.stringify(perMessageDeflate));
    assert.match(answer.headers["sec-websocket-extensions"], /server_no_context_takeover; client_no_context_takeover/);
    const data = { text: "世界 ".repeat(3_000) };
    await server.publish("user:zip", "bulk", data);
    assert.deepEqual((await first(socket, "publication")).data, data);
    for (const ref of ["1", "2"]) socket.send(JSON.stringify({ type: "ping", ref }).padEnd(MAX_FRAME));
    await until(() => of(socket, "pong").length === 2, "compressed commands are understood");
    socket.send('{"type":"ping"}'.padEnd(20 * MAX_FRAME));
    assert.equal((await closing(socket))[0], 4005, "small on the wire, too big unpacked");
  }
  const without = native("zip", "/v1/socket", { perMessageDeflate: false });
  await first(without, "welcome");
  assert.equal(without.extensions, "");
  without.terminate();
});

test("older contracts: frames, pongs, fragments, refusals", async () => {
  const notes = dial(`/api/ws/notifications?token=${encodeURIComponent(token("carol"))}`);
  await first(notes, "connected");
  const topics = dial(`/api/ws?token=${token("carol")}`);
  await first(topics, "connection");
  topics.send('{"type":"sub', { fin: false });
  topics.send('scribe","topic":"wallet_updates"}', { fin: true });
  assert.deepEqual(await first(topics, "subscribed"), { type: "subscribed", topic: "wallet_updates", success: true });
  const progress = dial("/ws/carol", [], { headers: { authorization: `Bearer ${token("carol")}` } });
  await first(progress, "connection");
  progress.send(JSON.stringify({ type: "custom", text: "x" }).padEnd(MAX_FRAME));
  assert.deepEqual((await first(progress, "echo")).original_message, { type: "custom", text: "x" });
  await server.notify("carol", "hello");
  assert.equal((await first(notes, "notification")).data.title, "hello");
  assert.equal((await first(topics, "notification")).data.title, "hello");
  for (const socket of [notes, topics, progress]) {
    socket.ping("x");
    await until(() => socket.pongs.length, "a pong");
    socket.close(1000, "Manual disconnect");
    assert.equal((await closing(socket))[0], 1000);
  }
  assert.deepEqual(await closing(dial("/api/ws/notifications?token=bad")), [1008, "Unauthorized"]);
  assert.deepEqual(await closing(dial("/api/v1/ws/carol?token=bad")), [4001, "Invalid credentials"]);
  const large = dial(`/ws/carol?token=${token("carol")}`);
  await first(large, "connection");
  large.send("x".repeat(MAX_FRAME + 1));
  assert.deepEqual(await closing(large), [1009, "message too big"]);
});
