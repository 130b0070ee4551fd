// The Pinia store over both transports, and desktop notifications, against a real server.

import assert from "node:assert/strict";
import { test } from "node:test";
import { DualcastClient } from "../../../clients/core/src/index.js";
import { WebSocket, token, until } from "../core/support/server.js";
import { dualcast, legacy, logger, pinia, scoped, stub } from "./support.js";
import { client, live, world } from "./world.js";

const { configureWebSocketStore, useNotificationStore, useWebSocketStore } = legacy;


const store = (config) => {
  pinia.setActivePinia(pinia.createPinia());
  const words = logger();
  configureWebSocketStore({ auth: { token: token(world.user) }, baseUrl: world.server.url, WebSocket, log: words.log, ...config });
  const made = useWebSocketStore();
  world.ends.push(() => made.disconnect());
  return { made, list: useNotificationStore(), said: words.said };
};
const TRANSPORTS = { legacy: { transport: "legacy" }, dualcast: { transport: "dualcast", dualcast: { storage: null } } };

for (const [name, config] of Object.entries(TRANSPORTS)) {
  test(`S1.15 S1.20 S1.24 S1.25 S1.27 the store over ${name}: connect, a notification, disconnect`, async () => {
    const { made, list, said } = store(config);
    made.connect();
    await until(() => made.connected && said.log.length, "connected");
    assert.equal(made.reconnectAttempts, 0);
    await world.server.notify(world.user, "分析完成", { type: "analysis", content: "done", link: "/stocks/000001", source: "analysis" });
    await until(() => list.items.length, "in the list");
    const { title, type, content, link, source, status } = list.items[0];
    assert.deepEqual([title, type, content, link, source, status, list.unreadCount], ["分析完成", "analysis", "done", "/stocks/000001", "analysis", "unread", 1]);
    made.disconnect();
    assert.deepEqual([made.ws, made.connected, made.reconnectTimer], [null, false, null]);
    const witness = client();
    let heard = false;
    witness.on("notification", () => (heard = true));
    witness.connect();
    await live(witness);
    await world.server.notify(world.user, "later");
    await until(() => heard, "another page of the user has it");
    assert.equal(list.items.length, 1);
    assert.deepEqual([said.warn, said.error], [[], []]);
  });
}

test("the store over dualcast: SSE where there is no WebSocket", async () => {
  const { made, list } = store({ transport: "dualcast", dualcast: { storage: null, transports: ["fetch"] } });
  made.connect();
  await until(() => made.connected, "connected");
  assert.equal(made.ws.status.transport, "sse");
  await world.server.notify(world.user, "one");
  await until(() => list.items.length === 1, "one");
  assert.equal(useWebSocketStore().ws instanceof DualcastClient, true);
});

test("the store over dualcast: a token that is gone stops, a client of the app's is used, send() is a command", async () => {
  const auth = { token: token(world.user) };
  const gone = store({ auth: () => auth, transport: "dualcast", dualcast: { storage: null } });
  gone.made.connect();
  auth.token = "";
  await until(() => gone.said.error.length, "stopped");
  assert.equal(gone.made.connected, false);

  const own = client();
  const { made, said } = store({ transport: "dualcast", dualcast: own });
  made.connect();
  await until(() => made.connected, "connected");
  assert.equal(made.ws, own);
  await world.server.notify(world.user, "a");
  const answers = [];
  const { request } = own;
  own.request = (...command) => request.apply(own, command).then((reply) => (answers.push(reply), reply));
  made.send({ type: "read", all: true });
  await until(() => answers.length, "sent");
  assert.deepEqual([answers[0].action, answers[0].count], ["read", 1]);
  made.send({ type: "news" });
  await until(() => said.warn.length, "an unknown command is refused");
  made.connect();
  await until(() => made.connected, "again");
  made.disconnect();
  assert.deepEqual([own.status.status, own.listeners], ["off", 0]);
});

test("desktop notifications: nothing is asked without a gesture, shown only when permitted, closed with the scope", async (t) => {
  const shown = [];
  let asked = 0;
  class Notification {
    static permission = "default";
    static async requestPermission() {
      asked += 1;
      return (Notification.permission = "granted");
    }
    constructor(title, options) {
      shown.push(Object.assign(this, { title, ...options, open: true }));
    }
    close() {
      this.open = false;
    }
  }
  stub(t, "Notification", Notification);
  stub(t, "navigator", { userActivation: { isActive: false } });
  const made = client();
  made.connect();
  await live(made);
  const { out, stop } = scoped(() => dualcast.useDesktopNotifications({ client: made, when: "always" }));
  let heard;
  const off = made.on("notification", ({ data }) => (heard = data.title));
  await world.server.notify(world.user, "a");
  await until(() => heard === "a", "it is here before anything is permitted");
  off();
  assert.deepEqual([await out.request(), asked], ["default", 0]);
  navigator.userActivation.isActive = true;
  assert.deepEqual([await out.request(), asked, out.permission.value], ["granted", 1, "granted"]);
  for (let number = 0; number < 7; number += 1) await world.server.notify(world.user, `n${number}`, { content: "text" });
  await until(() => shown.length === 7, "shown");
  assert.deepEqual([shown[0].title, shown[0].body, shown[0].icon], ["n0", "text", "/favicon.ico"]);
  assert.deepEqual(shown.map(({ open }) => open), [false, false, true, true, true, true, true]);
  stop();
  assert.deepEqual(shown.filter(({ open }) => open), []);
  assert.equal(made.listeners, 0);
});
