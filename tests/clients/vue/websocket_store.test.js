// The store of older pages, over sockets that a test makes.

import assert from "node:assert/strict";
import { beforeEach, mock, test } from "node:test";
import { PACKAGE, esbuild, legacy, logger, mounted, pinia, sockets, stub, vue } from "./support.js";

const { configureWebSocketStore, useNotificationStore, useWebSocketStore, WebSocketRoot } = legacy;

const ITEM = { id: "n1", type: "analysis", title: "分析完成", content: "000001 分析已完成", link: "/stocks/000001", source: "analysis", status: "unread", created_at: "2026-01-31T12:00:00.000000Z" };

let made;
let said;
const set = (config = {}) => {
  const { FakeSocket, made: sockets_ } = sockets();
  const { log, said: words } = logger();
  made = sockets_;
  said = words;
  configureWebSocketStore({ auth: { token: "t/1 +" }, baseUrl: "http://h/", WebSocket: FakeSocket, log, ...config });
};

beforeEach(() => {
  pinia.setActivePinia(pinia.createPinia());
  set();
});

test("S1.15 S1.16 S1.29 the store is `websocket`, with its state and methods", () => {
  const store = useWebSocketStore();
  assert.equal(store.$id, "websocket");
  assert.deepEqual({ ...store.$state }, { ws: null, connected: false, reconnectTimer: null, reconnectAttempts: 0, maxReconnectAttempts: 5 });
  for (const name of ["connect", "disconnect", "send"]) assert.equal(typeof store[name], "function");
  store.connect();
  assert.equal(store.ws, made[0], "the socket itself, not a proxy of it");
});

test("S1.17 connect() closes an existing socket first, which then says no more", async () => {
  const store = useWebSocketStore();
  store.connect();
  made[0].open();
  store.connect();
  assert.equal(made[0].closed, true);
  assert.equal(store.connected, false);
  made[1].open();
  await Promise.resolve(); // the close of the first one arrives
  made[0].frame({ type: "notification", data: ITEM });
  assert.equal(store.connected, true);
  assert.equal(store.ws, made[1]);
  assert.equal(useNotificationStore().items.length, 0);
});

test("S1.18 the token is that of the auth store, or the one in localStorage, encoded", (t) => {
  const store = useWebSocketStore();
  store.connect();
  assert.equal(made[0].url, "ws://h/api/ws/notifications?token=t%2F1%20%2B");
  stub(t, "localStorage", { getItem: (key) => (key === "auth-token" ? "kept&1" : null) });
  for (const auth of [undefined, { token: null }, () => ({ token: "" })]) {
    set({ auth });
    store.connect();
    assert.equal(made[0].url, "ws://h/api/ws/notifications?token=kept%261");
  }
  set({ auth: () => ({ token: "renewed" }) });
  store.connect();
  assert.match(made[0].url, /token=renewed$/);
});

test("without a token there is no attempt", () => {
  set({ auth: undefined });
  const store = useWebSocketStore();
  store.connect();
  assert.deepEqual([made.length, said.warn.length, store.ws, store.reconnectTimer], [0, 1, null, null]);
});

test("S1.19 wss on https, ws otherwise; the host without scheme and trailing slash", (t) => {
  const store = useWebSocketStore();
  const at = (baseUrl, page) => {
    stub(t, "location", page && new URL(page));
    set({ baseUrl });
    store.connect();
    return made[0].url.split("/api/")[0];
  };
  assert.equal(at("http://h:8000/", "http://page"), "ws://h:8000");
  assert.equal(at("http://h:8000", "https://page"), "wss://h:8000", "a secure page opens no other");
  assert.equal(at("https://h/", "http://page"), "wss://h");
  assert.equal(at("h:8000/", "http://page"), "ws://h:8000");
  assert.equal(at("https://h/back/", "https://page"), "wss://h/back");
  assert.equal(at("", "https://page:8443/x"), "wss://page:8443");
  assert.equal(at("/", "http://page"), "ws://page");
  assert.equal(at("/back/", "http://page"), "ws://page/back");
  assert.equal(at(undefined, "http://page"), "ws://page", "no import.meta.env here");
});

test("S1.19 the base is VITE_API_BASE_URL, as Vite puts it into a build", async () => {
  const define = { "import.meta.env": JSON.stringify({ VITE_API_BASE_URL: "https://push.example.com/" }) };
  const entry = new URL("src/pinia/config.js", PACKAGE).pathname;
  const { outputFiles } = await esbuild.build({ entryPoints: [entry], bundle: true, write: false, format: "esm", define });
  const built = await import(`data:text/javascript,${encodeURIComponent(outputFiles[0].text)}`);
  assert.equal(built.socketUrl("t"), "wss://push.example.com/api/ws/notifications?token=t");
  built.configureWebSocketStore({ baseUrl: "http://other" });
  assert.equal(built.serverUrl(), "http://other", "what the app says goes first");
});

test("S1.20 S1.22 onopen: connected, attempts 0; onerror: not connected", () => {
  const store = useWebSocketStore();
  store.connect();
  store.reconnectAttempts = 3;
  made[0].open();
  assert.deepEqual([store.connected, store.reconnectAttempts], [true, 0]);
  made[0].onerror({});
  assert.equal(store.connected, false);
});

test("S1.21 onclose: again after 1, 2, 4, 8, 16 s, then an error and no more", (t) => {
  mock.timers.enable({ apis: ["setTimeout"] });
  t.after(() => mock.timers.reset());
  const store = useWebSocketStore();
  store.connect();
  const waits = [1_000, 2_000, 4_000, 8_000, 16_000];
  for (const [number, wait] of waits.entries()) {
    made[number].onclose({ code: number ? 1006 : 1000 }); // any close
    assert.deepEqual([store.ws, store.connected, store.reconnectAttempts], [null, false, number]);
    mock.timers.tick(wait - 1);
    assert.equal(made.length, number + 1, "not yet");
    mock.timers.tick(1);
    assert.equal(made.length, number + 2);
    assert.equal(store.reconnectAttempts, number + 1);
  }
  assert.deepEqual(said.error, []);
  made[5].onclose({ code: 1006 });
  assert.match(said.error[0], /gave up after 5/);
  mock.timers.tick(120_000);
  assert.equal(made.length, 6);
  assert.equal(store.reconnectTimer, null);
});

test("S1.21 the wait is at most 30 s, and an open starts anew", (t) => {
  mock.timers.enable({ apis: ["setTimeout"] });
  t.after(() => mock.timers.reset());
  const store = useWebSocketStore();
  store.maxReconnectAttempts = 20;
  store.connect();
  store.reconnectAttempts = 7;
  made[0].onclose({});
  mock.timers.tick(29_999);
  assert.equal(made.length, 1);
  mock.timers.tick(1);
  assert.equal(made.length, 2);
  made[1].open();
  made[1].onclose({});
  mock.timers.tick(1_000);
  assert.equal(made.length, 3);
  store.disconnect();
});

for (const code of [1008, 1013, 4409]) {
  test(`an open that is refused with ${code} was none: five attempts and no more, or tabs would evict one another for ever`, (t) => {
    mock.timers.enable({ apis: ["setTimeout"] });
    t.after(() => mock.timers.reset());
    const store = useWebSocketStore();
    store.connect();
    for (let number = 0; number < 9; number += 1) {
      made[number]?.open();
      made[number]?.onclose({ code });
      mock.timers.tick(30_000);
    }
    assert.equal(made.length, 6);
    assert.match(said.error[0], /gave up after 5/);
  });
}

test("S1.42 reconnecting by hand after the store gave up", (t) => {
  mock.timers.enable({ apis: ["setTimeout"] });
  t.after(() => mock.timers.reset());
  const store = useWebSocketStore();
  store.maxReconnectAttempts = 0;
  store.connect();
  made[0].onclose({});
  assert.equal(said.error.length, 1);
  store.maxReconnectAttempts = 5;
  store.disconnect();
  store.connect();
  made[1].open();
  assert.equal(store.connected, true);
  made[1].onclose({});
  assert.notEqual(store.reconnectTimer, null, "with all its attempts again");
  store.connect(); // does not wait for the timer, and ends it
  mock.timers.tick(60_000);
  assert.equal(made.length, 3);
});

test("S1.23 what is no JSON is logged, and the next frame is read", () => {
  const store = useWebSocketStore();
  store.connect();
  made[0].frame("{");
  assert.equal(said.error.length, 1);
  made[0].frame({ type: "notification", data: ITEM });
  assert.equal(useNotificationStore().items.length, 1);
});

test("S1.24 connected is logged, heartbeat ignored, the unknown warned of", () => {
  useWebSocketStore().connect();
  made[0].frame({ type: "connected", data: { user_id: "u1" } });
  assert.deepEqual([said.log.length, said.warn], [1, []]);
  made[0].frame({ type: "heartbeat", data: { timestamp: "…Z" } });
  assert.deepEqual([said.log.length, said.warn, said.error], [1, [], []]);
  for (const odd of [{ type: "news" }, {}, null, 7, []]) made[0].frame(JSON.stringify(odd));
  assert.equal(said.warn.length, 5);
  for (const line of said.warn) assert.match(line, /未知消息类型/);
});

test("S1.25 a notification goes to the list: the store of this package, bounded", () => {
  useWebSocketStore().connect();
  const list = useNotificationStore();
  assert.equal(list.$id, "notification");
  made[0].frame({ type: "notification", data: ITEM });
  made[0].frame({ type: "notification", data: ITEM }); // a reconnect may bring it again
  assert.deepEqual({ ...list.items[0] }, ITEM);
  assert.deepEqual([list.items.length, list.unreadCount], [1, 1]);
  made[0].frame({ type: "notification", data: { ...ITEM, id: "n2", status: "read" } });
  assert.deepEqual([list.items.length, list.unreadCount], [2, 1]);
  for (const odd of [{ title: "" }, { type: undefined }]) made[0].frame({ type: "notification", data: { ...ITEM, id: "x", ...odd } });
  assert.equal(list.items.length, 2, "section 3.7");
  for (let number = 0; number < 300; number += 1) made[0].frame({ type: "notification", data: { ...ITEM, id: `m${number}` } });
  assert.deepEqual([list.items.length, list.unreadCount], [200, 301]);
  assert.equal(list.items[0].id, "m299");
  list.markRead("m299");
  list.markRead("m299");
  assert.equal(list.unreadCount, 300);
  list.markAllRead();
  assert.equal(list.unreadCount, 0);
});

test("S1.25 … or the store the app has", () => {
  const given = [];
  set({ notifications: () => ({ addNotification: (item) => given.push(item) }) });
  useWebSocketStore().connect();
  made[0].frame({ type: "notification", data: { ...ITEM, status: undefined } });
  assert.deepEqual(given, [ITEM], "status is unread where it is missing");
  assert.equal(useNotificationStore().items.length, 0);
});

test("S1.26 a desktop notification when it is permitted, and only then", (t) => {
  const shown = [];
  class Notification {
    static permission = "default";
    constructor(title, { body, icon }) {
      shown.push({ title, body, icon });
    }
  }
  stub(t, "Notification", Notification);
  useWebSocketStore().connect();
  for (const permission of ["default", "denied", "granted"]) {
    Notification.permission = permission;
    made[0].frame({ type: "notification", data: ITEM });
  }
  assert.deepEqual(shown, [{ title: ITEM.title, body: ITEM.content, icon: "/favicon.ico" }]);
  set({ desktop: false });
  useWebSocketStore().connect();
  made[0].frame({ type: "notification", data: ITEM });
  assert.equal(shown.length, 1);
});

test("a browser that has the class and refuses it loses nothing but the desktop notification", (t) => {
  stub(t, "Notification", class { static permission = "granted"; constructor() { throw new TypeError("Illegal constructor"); } });
  useWebSocketStore().connect();
  made[0].frame({ type: "notification", data: ITEM });
  assert.equal(useNotificationStore().items.length, 1);
});

test("S1.27 disconnect() clears the timer, closes the socket, resets the state, and stays away", async (t) => {
  const store = useWebSocketStore();
  store.connect();
  made[0].open();
  store.disconnect();
  assert.equal(made[0].closed, true);
  await Promise.resolve(); // its close arrives: no reconnect
  assert.deepEqual({ ...store.$state }, { ws: null, connected: false, reconnectTimer: null, reconnectAttempts: 0, maxReconnectAttempts: 5 });
  mock.timers.enable({ apis: ["setTimeout"] });
  t.after(() => mock.timers.reset());
  store.connect();
  made[1].onclose({});
  assert.notEqual(store.reconnectTimer, null);
  store.disconnect();
  assert.equal(store.reconnectTimer, null);
  mock.timers.tick(60_000);
  assert.equal(made.length, 2);
});

test("S1.28 send() sends JSON, and warns when not connected", () => {
  const store = useWebSocketStore();
  store.send({ type: "ping" });
  store.connect();
  store.send({ type: "ping" });
  assert.equal(said.warn.length, 2);
  made[0].open();
  store.send({ type: "ping", data: { 问: 1 } });
  assert.deepEqual(made[0].sent, ['{"type":"ping","data":{"问":1}}']);
  assert.equal(said.warn.length, 2);
});

test("no log line has the token", () => {
  const store = useWebSocketStore();
  store.connect();
  made[0].onerror({ target: made[0] });
  made[0].frame("{");
  set({ auth: { token: "secret-1" }, WebSocket: class { constructor(url) { throw new SyntaxError(`bad ${url}`); } } });
  store.connect();
  assert.equal(said.error.length, 1);
  assert.doesNotMatch(JSON.stringify(said), /secret|t%2F1|t\/1/);
  assert.equal(store.ws, null);
});

test("two apps on a page: a notification goes to the list of the store's own app", () => {
  const [one, two] = [pinia.createPinia(), pinia.createPinia()];
  useWebSocketStore(one).connect();
  pinia.setActivePinia(two); // the other app came later
  made[0].frame({ type: "notification", data: ITEM });
  assert.deepEqual([useNotificationStore(one).items.length, useNotificationStore(two).items.length], [1, 0]);
});

test("over dualcast, who asks for a token of his own needs none in the page", () => {
  let connects = 0;
  const client = { status: { status: "off" }, on: () => () => {}, connect: () => (connects += 1), disconnect() {}, request() {} };
  set({ auth: undefined, transport: "dualcast", dualcast: client });
  const page = mounted(() => WebSocketRoot.setup({}, { slots: {} }), pinia.createPinia());
  assert.deepEqual([connects, said.warn], [1, []]);
  page.unmount();
  set({ auth: undefined, transport: "dualcast", dualcast: {} });
  useWebSocketStore().connect();
  assert.equal(said.warn.length, 1, "nobody to ask");
});

test("S1.30 the root connects on mount when signed in, and disconnects on unmount", async () => {
  const auth = vue.reactive({ token: "t", isAuthenticated: false });
  set({ auth: () => auth });
  const root = (plugin) => mounted(() => WebSocketRoot.setup({}, { slots: {} }), plugin);
  const signedOut = root(pinia.createPinia());
  assert.equal(made.length, 0);
  auth.isAuthenticated = true;
  await vue.nextTick();
  assert.equal(made.length, 1, "signed in later");
  auth.isAuthenticated = false;
  await vue.nextTick();
  assert.equal(made[0].closed, true);
  signedOut.unmount();
  auth.isAuthenticated = true;
  await vue.nextTick();
  assert.equal(made.length, 1, "nothing listens after unmount");
  const signedIn = root(pinia.createPinia());
  made[1].open();
  signedIn.unmount();
  await Promise.resolve();
  assert.equal(made[1].closed, true);
  assert.equal(made.length, 2);
});

test("a store that is disposed leaves no socket and no timer", (t) => {
  mock.timers.enable({ apis: ["setTimeout"] });
  t.after(() => mock.timers.reset());
  const store = useWebSocketStore();
  store.connect();
  made[0].onclose({});
  store.$dispose();
  mock.timers.tick(60_000);
  assert.equal(made.length, 1);
});
