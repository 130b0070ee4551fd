// The clients against a server process.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { AuthService, PageSocket, RoomsClient, createChatApi, loadServerConfig, serverBase } from "../../../clients/react/src/legacy/index.js";
import { Server, WebSocket, token, until } from "../core/support/server.js";

/** @type {Server} */
let server;
const ends = [];

before(async () => {
  server = await Server.start();
});
after(async () => {
  for (const end of ends) end();
  await server?.close();
});

function rooms(user, bearer = token(user)) {
  const client = new RoomsClient({ base: () => serverBase(server.url).ws, userId: user, token: bearer, WebSocket });
  const seen = [];
  client.handlers.onAny((message) => seen.push(message));
  ends.push(client.disconnect);
  client.connect();
  return { client, seen, types: () => seen.map(({ type }) => type) };
}

/** A user on the page /chat. */
function chat(user) {
  const auth = new AuthService({ read: () => token(user) });
  const page = new PageSocket({ url: server.url, scope: { location: { pathname: "/chat" } }, auth, WebSocket });
  const seen = [];
  const last = []; // every message that was once the last one
  page.onMessage((message) => seen.push(message));
  page.watch(() => last.at(-1) === page.getSnapshot().lastMessage || last.push(page.getSnapshot().lastMessage));
  ends.push(page.use());
  const api = createChatApi({ url: server.url, getToken: () => token(user) });
  return { page, seen, last, api, names: () => seen.map(({ action }) => action) };
}

test("S0.47 rooms: greeted first, then answers, notifications, rooms, errors", async () => {
  const { client, seen, types } = rooms("u1");
  await until(() => client.getSnapshot().isConnected);
  assert.equal(types()[0], "connection_established");
  client.subscribe("notifications");
  client.send({ type: "x" });
  client.send({ type: "ping" });
  await until(() => types().filter((type) => type === "pong").length >= 2);
  await server.call("POST", "/api/v1/ws/notify/u1", { title: "T", message: "M", type: "warning" });
  await server.call("POST", "/api/v1/ws/broadcast", { message: { message: "hello" } });
  await until(() => types().includes("system_message") && types().includes("notification"));
  const of = (type) => seen.find((one) => one.type === type);
  assert.deepEqual([of("notification").data.title, of("notification").data.notification_type], ["T", "warning"]);
  assert.equal(of("system_message").data.message, "hello");
  assert.equal(of("room_subscribed").room, "notifications");
  assert.equal(of("stats").data.users.u1, 1);
  assert.equal(of("error").data.message, "Unknown message type: x");
});

test("S3.99 a token that will not do ends it, with one attempt", async () => {
  const { client } = rooms("u1", "bad");
  await until(() => client.getSnapshot().reason === "refused");
  assert.equal(client.getSnapshot().connectionStatus, "error");
  const other = rooms("u1", token("u2"));
  await until(() => other.client.getSnapshot().reason === "refused");
});

test("S3.4 S3.16 S3.45 conversations: what one says over REST, the other reads as lastMessage", async () => {
  const [ann, ben] = [chat("ann"), chat("ben")];
  await server.call("PUT", "/v1/conversations/conv_1/participants", { participants: ["ann", "ben"] });
  await until(() => [ann, ben].every(({ page }) => page.getSnapshot().isConnected));
  await until(() => [ann, ben].every(({ names }) => names().includes("connected"))); // from here on they are sent what is said

  const message = { id: "m1", content: "你好", exclude_connection_id: ann.page.connectionId };
  for (let time = 0; time < 2; time += 1) assert.deepEqual(await ann.api.sendMessage("conv_1", message), { status: "sent", message_id: "m1" });
  await until(() => ben.names().includes("new_message"));
  assert.equal(ben.last.find((one) => one?.action === "new_message").data.content, "你好");
  assert.deepEqual(await ben.api.sendTyping("conv_1", true), { status: "ok" });
  assert.deepEqual(await ben.api.markRead("conv_1", ["m1"]), { status: "ok" });
  await until(() => ann.names().includes("read_status"));
  const typing = ann.seen.find(({ event_type }) => event_type === "typing_update");
  assert.deepEqual([typing.action, typing.data], ["typing_status", { user_id: "ben", is_typing: true }]);
  assert.equal(ben.names().filter((name) => name === "new_message").length, 1);
  assert.ok(!ann.names().includes("new_message"), "the sender's own connection has it already");
  await assert.rejects(chat("eve").api.sendMessage("conv_1", { content: "x" }), (error) => error.status === 403);
});

test("S3.37 the server wants its clients configured as they are anyway", async () => {
  assert.deepEqual(await loadServerConfig(server.url), {
    config: { connectionTimeout: 20000, heartbeatInterval: 45000, reconnectInterval: 2000, maxReconnectDelay: 30000 },
    maxAttempts: 15,
  });
});

test("S3.8 S3.10 a server that goes and comes back: both clients come back by themselves, rooms are joined again", async () => {
  const { client, seen } = rooms("u9");
  const { page } = chat("u9");
  client.subscribe("news");
  const joined = () => seen.filter(({ type }) => type === "room_subscribed").length;
  await until(() => joined() === 1 && page.getSnapshot().isConnected);
  await server.down();
  await until(() => [client, page].every((one) => one.getSnapshot().connectionStatus === "reconnecting"));
  await server.up();
  await until(() => [client, page].every((one) => one.getSnapshot().isConnected) && joined() === 2);
});
