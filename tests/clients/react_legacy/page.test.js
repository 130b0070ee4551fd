// The page's socket: when it connects, and when it does not, counted at the server.

import assert from "node:assert/strict";
import { createServer } from "node:http";
import { after, before, beforeEach, test } from "node:test";
import { AuthService, PageSocket, definePages, defineFeature } from "../../../clients/react/src/legacy/index.js";
import { watchPath } from "../../../clients/react/src/legacy/page_path.js";
import { WebSocket, token, until } from "../core/support/server.js";
import { FakeClock, fakeSockets } from "./support/fakes.js";

const turn = () => new Promise((done) => setImmediate(done));

/** A window as far as paths go. */
function fakeWindow(path, navigation) {
  const scope = new EventTarget();
  scope.location = { pathname: path };
  const go = (to) => (scope.location.pathname = to);
  scope.history = { pushState: (_state, _title, to) => go(to), replaceState: (_state, _title, to) => go(to) };
  if (navigation) scope.navigation = new EventTarget();
  return scope;
}

function fakeAuth(first) {
  const found = new AuthService({ read: () => found.token });
  found.token = first;
  found.sign = (token) => {
    found.token = token;
    found.changed();
  };
  return found;
}

function world(path, { token: first = token("u1"), ...options } = {}) {
  const clock = new FakeClock();
  const Socket = fakeSockets();
  const scope = fakeWindow(path);
  const auth = fakeAuth(first);
  const page = new PageSocket({ url: "ws://push.example.com", scope, auth, clock, WebSocket: Socket, ...options });
  const told = [];
  page.onMessage(({ action }) => told.push(action));
  const goes = async (to) => {
    scope.history.pushState(null, "", to);
    await turn();
  };
  const status = () => [page.getSnapshot().connectionStatus, page.getSnapshot().reason];
  const shown = () => clock.pass(0);
  return { page, clock, Socket, scope, auth, told, goes, status, shown };
}

test("S3.2 S3.31 S3.32 page load, configuration, authentication, and only then a connection", async () => {
  const { page, Socket, auth, goes, status, shown } = world("/", { token: "" });
  page.use();
  shown();
  assert.deepEqual([Socket.made.length, ...status()], [0, "disconnected", "disabled"]);
  await goes("/chat");
  assert.deepEqual([Socket.made.length, ...status()], [0, "disconnected", "unauthenticated"]);
  auth.sign(token("u1"));
  assert.deepEqual([Socket.made.length, ...status()], [1, "connecting", ""]);
  assert.match(Socket.last.url, /^ws:\/\/push\.example\.com\/api\/v1\/ws\?token=.+&connectionId=[0-9a-f]{32}&deviceType=desktop&deviceId=[0-9a-f]{32}$/);
  Socket.last.greet();
  assert.deepEqual(status(), ["connected", ""]);
  auth.sign("");
  assert.deepEqual(status(), ["disconnected", "unauthenticated"]);
  assert.deepEqual(Socket.last.closes, [[1000, ""]]);
});

test("S3.59 S3.100 a page that is left disconnects, and nothing of it is seen on the next", async () => {
  const { page, Socket, told, goes, status, shown } = world("/chat/1");
  page.use();
  shown();
  const first = Socket.last.greet();
  first.say({ event: "x", action: "new_message", event_type: "new_message", data: { id: "m1" } });
  assert.equal(page.getSnapshot().lastMessage.data.id, "m1");
  assert.equal(page.sendMessage({ n: 1 }), true);
  await goes("/chat/2");
  assert.equal(Socket.made.length, 1, "the same page");
  await goes("/admin");
  assert.deepEqual([first.closes.length, Socket.made.length], [1, 2]);
  assert.deepEqual([page.getSnapshot().lastMessage, page.getSnapshot().config.connectionType], [null, "admin"]);
  first.say({ action: "new_message", data: { id: "m2" } });
  assert.equal(page.getSnapshot().lastMessage, null);
  assert.deepEqual(told, ["connection_established", "new_message"]);
  Socket.last.greet();
  await goes("/");
  assert.deepEqual([Socket.last.closes.length, Socket.made.length, ...status()], [1, 2, "disconnected", "disabled"]);
  assert.equal(page.sendMessage({ n: 2 }), false);
});

test("S3.32 a page that does not connect by itself waits for connect(); disconnect() is final there", async () => {
  const { page, clock, Socket, goes, status, shown } = world("/test-websocket");
  page.use();
  shown();
  assert.deepEqual([Socket.made.length, ...status()], [0, "disconnected", "manual"]);
  page.connect();
  Socket.last.greet();
  assert.deepEqual(status(), ["connected", ""]);
  page.disconnect();
  clock.pass(60_000);
  await goes("/test-websocket");
  assert.deepEqual([Socket.made.length, ...status()], [1, "disconnected", "manual"]);
  await goes("/");
  page.connect();
  assert.equal(Socket.made.length, 1, "connect() cannot overrule the configuration");
});

test("a component that comes and goes in one turn makes no second connection; the last one ends it", () => {
  const { page, clock, Socket, scope, shown } = world("/chat");
  const before = scope.history.pushState;
  const leave = page.use();
  leave();
  const again = page.use();
  shown();
  assert.equal(Socket.made.length, 1);
  Socket.last.greet();
  again();
  const other = page.use();
  shown();
  assert.deepEqual(Socket.last.closes, []);
  other();
  shown();
  assert.equal(Socket.last.closes.length, 1);
  assert.deepEqual([page.getSnapshot(), clock.waits], [page.getServerSnapshot(), []]);
  assert.equal(scope.history.pushState, before);
});

test("another user is another connection, a renewed token is none, and it helps where the old one was refused", () => {
  const { page, clock, Socket, auth, shown } = world("/chat", { token: token("u1", { lifeS: 1 }) });
  page.use();
  shown();
  Socket.last.greet();
  page.sendMessage({ n: 1 });
  auth.sign(token("u1", { lifeS: 2 }));
  assert.equal(Socket.made.length, 1);
  auth.token = token("u1", { lifeS: 3 });
  Socket.last.end(1012);
  clock.pass(2_300);
  assert.equal(new URL(Socket.last.url).searchParams.get("token"), auth.token, "the newest");
  Socket.last.end(4001);
  assert.equal(Socket.made.length, 2);
  auth.sign(token("u1", { lifeS: 4 }));
  assert.equal(Socket.made.length, 3);
  auth.sign(token("u2"));
  assert.equal(Socket.made.length, 4);
  Socket.last.greet();
  assert.ok(!Socket.last.sent.join().includes('"n"'));
});

test("S3.33 a page that is defined after it was opened connects, with its features", () => {
  const pages = {};
  const { page, Socket, shown } = world("/orders", { pages });
  const seen = [];
  const forget = defineFeature("orders", ({ handlers, sendMessage }) => {
    handlers.on("order", ({ data }) => seen.push(data));
    seen.push(sendMessage({ action: "hello" })); // waits for the connection
    return () => seen.push("left");
  });
  const leave = page.use();
  shown();
  assert.equal(Socket.made.length, 0);
  definePages({ "/orders": { features: ["orders"] } }, pages);
  Socket.last.greet().say({ action: "order", data: 1 });
  leave();
  shown();
  forget();
  assert.deepEqual(seen, [true, 1, "left"]);
});

test("S3.59 paths: the Navigation API where there is one, else the History API, and the way back", async () => {
  for (const navigation of [true, false]) {
    const scope = fakeWindow("/", navigation);
    const { pushState } = scope.history;
    let told = 0;
    const stop = watchPath(() => (told += 1), scope);
    if (navigation) scope.navigation.dispatchEvent(new Event("currententrychange"));
    else scope.history.replaceState(null, "", "/a");
    assert.equal(told, 0, "not while a router renders");
    await turn();
    assert.equal(told, 1);
    scope.dispatchEvent(new Event("popstate"));
    await turn();
    assert.equal(told, 2);
    scope.history.pushState(null, "", "/b");
    stop();
    if (navigation) scope.navigation.dispatchEvent(new Event("currententrychange"));
    scope.dispatchEvent(new Event("popstate"));
    scope.history.pushState(null, "", "/c");
    await turn();
    assert.deepEqual([told, scope.history.pushState === pushState], [2, true]);
  }
});

let http;
let opened = 0;
before(async () => {
  http = createServer((_request, response) => response.end()).on("upgrade", (_request, socket) => {
    opened += 1;
    socket.destroy();
  });
  await new Promise((done) => http.listen(0, "127.0.0.1", done));
});
after(() => http.close());
beforeEach(() => (opened = 0));

test("S3.57 S3.61 no attempt reaches the server from a login page or one that wants none; most pages cost nothing", async () => {
  const scope = fakeWindow("/login");
  const auth = fakeAuth(token("u1"));
  const page = new PageSocket({ url: `http://127.0.0.1:${http.address().port}`, scope, auth, WebSocket });
  const leave = page.use();
  const goes = async (to) => {
    scope.history.pushState(null, "", to);
    await turn();
  };
  await new Promise((done) => setTimeout(done));
  assert.equal(page.getSnapshot().reason, "login");
  for (const path of ["/", "/login", "/chat/login", "/admin/login", "/products/1", "/about", "/profile", "/settings"]) {
    await goes(path);
    page.connect();
    assert.match(page.getSnapshot().reason, /^(login|disabled)$/, path);
    assert.equal(page.sendMessage({ n: 1 }), false);
  }
  assert.equal(opened, 0);
  await goes("/chat");
  await until(() => opened === 1, "the one page of nine that wants a socket");
  await goes("/login");
  leave();
  await until(() => page.getSnapshot() === page.getServerSnapshot());
  assert.equal(opened, 1);
});
