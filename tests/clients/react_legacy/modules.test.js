// The framework-free modules, one by one.

import assert from "node:assert/strict";
import { test } from "node:test";
import { Timers } from "../../../clients/core/src/timers.js";
import {
  AuthService,
  CONNECTION_STATUS,
  ChatApiError,
  EVENTS,
  HandlerRegistry,
  Heartbeat,
  MAX_ATTEMPTS,
  MessageQueue,
  Reconnect,
  adaptMessage,
  buildEnv,
  cookieSource,
  createChatApi,
  defineFeature,
  definePages,
  deserialize,
  deviceType,
  findPage,
  firstOf,
  getDeviceInfo,
  getWebSocketDeviceConfig,
  isLoginPage,
  loadServerConfig,
  localStorageSource,
  messageEventHandler,
  PAGE_WEBSOCKET_CONFIG,
  reconnectDelay,
  serialize,
  serverBase,
} from "../../../clients/react/src/legacy/index.js";
import { backoff } from "../../../clients/react/src/legacy/client/reconnect.js";
import { startFeatures } from "../../../clients/react/src/legacy/features.js";
import { FakeClock } from "./support/fakes.js";

test("S3.7 the names of states and events", () => {
  assert.deepEqual(Object.values(CONNECTION_STATUS), ["disconnected", "connecting", "connected", "reconnecting", "error"]);
  assert.deepEqual(EVENTS, ["new_message", "presence_update", "typing_update", "conversation_update", "system_notification"]);
});

test("S3.10 S3.98 the wait doubles from 2 s, plus up to 30 %, to 30 s", () => {
  assert.deepEqual([0, 1, 2, 3, 4, 5, 99].map((n) => reconnectDelay(n, 0)), [2000, 4000, 8000, 16000, 30000, 30000, 30000]);
  assert.deepEqual([0, 1, 2, 3, 4].map((n) => reconnectDelay(n, 1)), [2600, 5200, 10400, 20800, 30000]);
});

test("S3.10 S3.97 fifteen attempts, and as many again once one has worked", () => {
  const clock = new FakeClock();
  const reconnect = new Reconnect(backoff(), new Timers(clock), clock.random);
  let ran = 0;
  const use = () => {
    while (reconnect.schedule(() => (ran += 1))) clock.pass(30_000);
  };
  use();
  assert.equal(ran, 15);
  assert.equal(MAX_ATTEMPTS, 15);
  reconnect.reset();
  use();
  assert.equal(ran, 30);
  reconnect.reset();
  reconnect.schedule(() => (ran += 1));
  reconnect.hurry();
  assert.equal(ran, 31);
  assert.deepEqual(clock.waits, []);
});

test("S3.9 a beat that cannot be sent ends it; silence only where the server has answered before", () => {
  const clock = new FakeClock();
  const seen = { beats: 0, dead: 0, works: true };
  const send = () => {
    seen.beats += 1;
    return seen.works;
  };
  const beat = new Heartbeat(45_000, send, () => (seen.dead += 1), new Timers(clock));
  beat.start();
  clock.pass(450_000);
  assert.deepEqual([seen.beats, seen.dead], [10, 0], "an older server answers nothing");
  beat.alive(true);
  clock.pass(45_000 * 2);
  assert.equal(seen.dead, 0);
  clock.pass(45_000);
  assert.equal(seen.dead, 1);
  assert.deepEqual(clock.waits, []);
  beat.start();
  seen.works = false;
  clock.pass(45_000);
  assert.equal(seen.dead, 2);
  assert.deepEqual(clock.waits, []);
});

test("S3.11 what is no JSON or too large is not sent; what is no object is not read", () => {
  assert.equal(serialize({ a: "你" }), '{"a":"你"}');
  assert.equal(serialize("ping"), "ping");
  const cycle = {};
  cycle.cycle = cycle;
  for (const bad of [cycle, { n: 1n }, undefined, () => 0, "你".repeat(30_000)]) assert.equal(serialize(bad), null);
  assert.deepEqual(deserialize('{"type":"x"}'), { type: "x" });
  assert.deepEqual(deserialize("pong"), { type: "pong" });
  for (const bad of ["", "{", "1", "null", "[]", '"x"', new Uint8Array(2), null]) assert.equal(deserialize(bad), null);
});

test("S3.12 what cannot be sent waits, in order, and not more than has room", () => {
  const queue = new MessageQueue(3);
  assert.deepEqual(["a", "b", "c", "d"].map((text) => queue.push(text)), [true, true, true, false]);
  const sent = [];
  queue.flush((text) => sent.length < 2 && sent.push(text) > 0);
  assert.deepEqual([sent, queue.size], [["a", "b"], 1]);
  queue.flush((text) => sent.push(text) > 0);
  assert.deepEqual([sent, queue.size], [["a", "b", "c"], 0]);
});

test("S3.13 frames of every kind in one shape", () => {
  const data = { content: "你好" };
  for (const frame of [{ event_type: "new_message", data }, { action: "new_message", data }, { type: "new_message", data }]) {
    const { event_type, action, type, data: found } = adaptMessage(frame);
    assert.deepEqual([event_type, action, type, found], ["new_message", "new_message", "new_message", data]);
  }
  const typing = adaptMessage({ event: "typing_status", action: "typing_status", event_type: "typing_update", data: {}, conversation_id: "c" });
  assert.deepEqual([typing.event_type, typing.action, typing.conversation_id], ["typing_update", "typing_status", "c"]);
  assert.deepEqual(adaptMessage({ type: "error", message: "Missing room", timestamp: "t" }).data, { message: "Missing room" });
  assert.equal(adaptMessage({ type: "x", data: null }).data, null);
  for (const bad of [{}, { event: "new_message", data }, { type: 1 }, { action: "" }]) assert.equal(adaptMessage(bad), null);
});

test("S3.14 handlers by any name, once, and those of the rest", () => {
  const registry = new HandlerRegistry();
  const heard = [];
  const off = registry.on("typing_status", () => heard.push("action"));
  registry.on("typing_update", () => heard.push("event"));
  registry.onOther(({ event_type }) => heard.push("other " + event_type));
  registry.onAny(({ event_type }) => heard.push("any " + event_type));
  registry.dispatch(adaptMessage({ action: "typing_status", event_type: "typing_update", data: {} }));
  assert.deepEqual(heard.splice(0), ["event", "action", "any typing_update"]);
  off();
  registry.dispatch(adaptMessage({ type: "typing_status", data: {} }));
  assert.deepEqual(heard, ["other typing_status", "any typing_status"]);
});

test("S3.15 any data is life, a message is delivered, an answer is not unless it is wanted", () => {
  const told = [];
  const to = { alive: (answer) => told.push(answer), deliver: ({ type }) => told.push(type) };
  const handle = messageEventHandler(to);
  for (const data of ['{"type":"a"}', "pong", '{"type":"heartbeat","timestamp":1}', "no JSON", "{}"]) handle(data);
  assert.deepEqual(told.splice(0), [false, "a", true, true, false, false]);
  messageEventHandler({ ...to, answers: true })('{"type":"pong"}');
  assert.deepEqual(told, [true, "pong"]);
});

function store() {
  const kept = new Map();
  return { getItem: (key) => kept.get(key) ?? null, setItem: (key, value) => kept.set(key, value), removeItem: (key) => kept.delete(key) };
}

test("S3.17 S3.18 the token: of storage, of a cookie, of the application", (t) => {
  const kept = { local: "", cookie: "" };
  const of = (name) => ({ read: () => kept[name] });
  const auth = new AuthService(firstOf(of("local"), of("cookie")));
  let told = 0;
  const off = auth.subscribe(() => (told += 1));
  assert.deepEqual([auth.getToken(), auth.isAuthenticated()], ["", false]);
  kept.cookie = "c";
  assert.equal(auth.getToken(), "c");
  kept.local = "l";
  assert.deepEqual([auth.getToken(), auth.isAuthenticated()], ["l", true]);
  auth.changed();
  assert.equal(told, 1);
  const listeners = new Set();
  const mine = { read: () => "own", subscribe: (listener) => (listeners.add(listener), () => listeners.delete(listener)) };
  auth.use(mine);
  assert.deepEqual([auth.getToken(), told, listeners.size], ["own", 2, 1]);
  for (const listener of listeners) listener();
  assert.equal(told, 3);
  off();
  assert.equal(listeners.size, 0);

  const before = [globalThis.localStorage, globalThis.document];
  t.after(() => {
    Object.defineProperty(globalThis, "localStorage", { value: before[0], configurable: true, writable: true });
    globalThis.document = before[1];
  });
  assert.ok(!cookieSource().read(), "no document");
  Object.defineProperty(globalThis, "localStorage", { value: store(), configurable: true, writable: true });
  globalThis.document = { cookie: "a=1; token=a%2Bb; c=2" };
  globalThis.localStorage.setItem("token", "kept");
  assert.deepEqual([localStorageSource().read(), cookieSource().read(), cookieSource("x").read()], ["kept", "a+b", undefined]);
  globalThis.document = { cookie: "token=%E4%A" };
  assert.equal(cookieSource().read(), "%E4%A");
});

test("S3.18 S3.37 what a device is, and one configuration for all", () => {
  const agents = {
    desktop: [["Mozilla/5.0 (X11; Linux x86_64) Chrome/140.0"], ["Mozilla/5.0 (Macintosh; Intel Mac OS X)", 0], [""]],
    mobile: [["Mozilla/5.0 (iPhone; CPU iPhone OS 18_0) Mobile/15E148", 5], ["Mozilla/5.0 (Linux; Android 15) Chrome/140.0 Mobile Safari"]],
    tablet: [["Mozilla/5.0 (Linux; Android 15; SM-X910) Chrome/140.0 Safari"], ["Mozilla/5.0 (Macintosh; Intel Mac OS X)", 5], ["Mozilla/5.0 (iPad; CPU OS 15_0)"]],
  };
  for (const [type, found] of Object.entries(agents))
    for (const [userAgent, maxTouchPoints] of found) assert.equal(deviceType({ userAgent, maxTouchPoints }), type, userAgent);
  const kept = store();
  const device = getDeviceInfo({}, kept);
  assert.match(device.deviceId, /^[0-9a-f]{32}$/);
  assert.deepEqual(getDeviceInfo({}, kept), device, "the same after a reload");
  assert.notEqual(getDeviceInfo({}, null).deviceId, device.deviceId);
  const wanted = { connectionTimeout: 20000, heartbeatInterval: 45000, reconnectInterval: 2000, maxReconnectDelay: 30000 };
  for (const type of ["desktop", "mobile", "tablet", "unknown"]) assert.deepEqual(getWebSocketDeviceConfig({ deviceType: type }), wanted);
});

test("S3.82 S3.83 the server's address and the kind of build come from the environment", (t) => {
  const before = { ...process.env };
  t.after(() => Object.assign(process.env, before));
  process.env.NEXT_PUBLIC_WS_URL = "ws://localhost:8000";
  process.env.NODE_ENV = "development";
  assert.deepEqual(buildEnv(), { NEXT_PUBLIC_WS_URL: "ws://localhost:8000", NODE_ENV: "development" });
  assert.deepEqual(serverBase(), { ws: "ws://localhost:8000", http: "http://localhost:8000" });
  assert.deepEqual(serverBase("https://push.example.com/dualcast/?x#y"), { ws: "wss://push.example.com/dualcast", http: "https://push.example.com/dualcast" });
  delete process.env.NEXT_PUBLIC_WS_URL;
  globalThis.location = { href: "https://app.example.com/chat?x=1", pathname: "/chat" };
  t.after(() => delete globalThis.location);
  assert.deepEqual(serverBase(), { ws: "wss://app.example.com", http: "https://app.example.com" });
  assert.throws(() => serverBase("ws://["), TypeError);
});

const flags = { enabled: true, requireAuth: true, autoConnect: true };

test("S3.34 S3.35 the entries of /chat and /admin", () => {
  assert.deepEqual(PAGE_WEBSOCKET_CONFIG["/chat"], { ...flags, connectionType: "chat", features: ["messaging", "typing_indicator", "file_upload", "voice_note"] });
  assert.deepEqual(PAGE_WEBSOCKET_CONFIG["/admin"], { ...flags, connectionType: "admin", features: ["system_notifications", "user_monitoring", "real_time_stats"] });
});

test("S3.36 chat pages do not watch the system, and the admin page does nothing else", () => {
  const chat = ["messaging", "typing_indicator", "file_upload"];
  const system = ["system_notifications", "user_monitoring", "real_time_stats"];
  for (const path of ["/doctor/chat", "/customer/chat", "/consultant/chat"]) assert.deepEqual(findPage(path).config.features, chat);
  for (const path of ["/chat", "/doctor/chat"]) assert.ok(!findPage(path).config.features.some((name) => system.includes(name)));
  assert.ok(!findPage("/admin").config.features.some((name) => chat.includes(name)));
});

test("S3.31 the entry of a page: the longest path that fits; none where nobody asked for one", () => {
  const pages = {};
  definePages({ "/shop": { features: ["a"] }, "/shop/:id/chat": {}, "/shop/1/chat": { autoConnect: false }, "/": { enabled: false } }, pages);
  assert.deepEqual(pages["/shop"], { ...flags, connectionType: null, features: ["a"] });
  const keys = { "/shop": "/shop", "/shop/2": "/shop", "/shop/2/chat/x": "/shop/:id/chat", "/shop/1/chat": "/shop/1/chat", "/shopping": "/", "/": "/" };
  for (const [path, key] of Object.entries(keys)) assert.equal(findPage(path, pages).key, key, path);
  assert.equal(findPage("/nowhere").config.enabled, false);
  assert.throws(() => definePages({ chat: {} }, pages), TypeError);
  for (const path of ["/login", "/admin/login", "/zh/Login/step-2", "/sign-in"]) assert.ok(isLoginPage(path), path);
  for (const path of ["/", "/chat", "/logins", "/catalogin"]) assert.ok(!isLoginPage(path), path);
});

test("S3.33 a feature is set up on pages that list it, and ended when the page is left", () => {
  const seen = [];
  const forget = defineFeature("a", ({ config }) => (seen.push("a of " + config.connectionType), () => seen.push("end")));
  const scope = { handlers: new HandlerRegistry(), sendMessage: () => true };
  startFeatures({ ...scope, config: { ...flags, connectionType: "x", features: ["b"] } })();
  assert.deepEqual(seen, []);
  const end = startFeatures({ ...scope, config: { ...flags, connectionType: "y", features: ["a", "b"] } });
  end();
  assert.deepEqual(seen, ["a of y", "end"]);
  forget();
});

test("S3.16 a call that fails says how, and not what it was sent with", async () => {
  const asked = [];
  const answers = [() => Response.json({ detail: "not a participant" }, { status: 403 }), () => Promise.reject(new TypeError("x")), () => new Response("?", { status: 502 })];
  const fetch = async (...call) => (asked.push(call), answers.shift()());
  const api = createChatApi({ url: "ws://push.example.com", getToken: () => "secret-token", fetch });
  const failure = (status, detail) => (error) => error instanceof ChatApiError && error.status === status && error.message === detail && !String(error.stack).includes("secret");
  await assert.rejects(api.sendMessage("a/b", { content: "x" }), failure(403, "not a participant"));
  await assert.rejects(api.sendTyping("a/b", true), failure(0, "the server was not reached"));
  await assert.rejects(api.markRead("a/b", ["m"]), failure(502, "the call failed"));
  assert.deepEqual(asked.map(([url]) => url), ["send", "typing", "read"].map((what) => `http://push.example.com/api/v1/chat/a%2Fb/${what}`));
});

test("the server's wishes for its clients: what is wrong or missing is left out", async () => {
  const answer = (body) => async () => Response.json(body);
  const wanted = { heartbeatInterval: 5, connectionTimeout: "x", maxReconnectDelay: -1, maxReconnectAttempts: 3 };
  assert.deepEqual(await loadServerConfig("http://x", answer(wanted)), { config: { heartbeatInterval: 5 }, maxAttempts: 3 });
  assert.deepEqual(await loadServerConfig("http://x", () => Promise.reject(new Error())), { config: {} });
});
