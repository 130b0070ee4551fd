// Against a real server, one for all of them: the plugin, the connection and the inbox here, more beside.

import assert from "node:assert/strict";
import { test } from "node:test";
import { token, until } from "../core/support/server.js";
import { dualcast, mounted, scoped, vue } from "./support.js";
import { CHANNELS, client, live, world } from "./world.js";
import "./channels.js";
import "./store.js";

const { createDualcast, useChannel, useConnectionStatus, useDualcast, useNotifications, usePresence, useUnreadCount } = dualcast;
const titles = (items) => items.value.map(({ title }) => title);

test("a component has the client of its app; unmounting the app takes everything off and disconnects", async () => {
  const made = client();
  const plugin = createDualcast(made, { connect: true });
  const page = mounted(() => {
    assert.equal(useDualcast(), made);
    return { connection: useConnectionStatus(), inbox: useNotifications(), prices: useChannel("topic:prices"), lobby: usePresence("lobby") };
  }, plugin);
  const { connection, inbox, prices, lobby } = page.out;
  await until(() => connection.connected.value && inbox.status.value === "ready" && prices.status.value === "subscribed" && lobby.status.value === "ready", "all there");
  assert.equal(connection.transport.value, "websocket");
  assert.ok(made.listeners > 0);
  await world.server.publish("topic:prices", "price", 1);
  await until(() => prices.last.value, "a publication");
  page.unmount();
  assert.equal(made.status.status, "off");
  await until(() => made.listeners === 0, "no listener left");
  assert.deepEqual(made.channels, []);
});

test("a client of the caller's is left alone", async () => {
  const made = client();
  made.connect();
  await live(made);
  const page = mounted(() => useConnectionStatus(), createDualcast(made));
  assert.equal(page.out.connected.value, true, "mounted: as it is now");
  page.unmount();
  assert.equal(made.status.status, "live");
  assert.equal(made.listeners, 0);
});

test("two apps of one plugin: the last one that goes disconnects", async () => {
  const made = client();
  const plugin = createDualcast(made, { connect: true });
  const [one, two] = [mounted(() => {}, plugin), mounted(() => {}, plugin)];
  await live(made);
  one.unmount();
  assert.equal(made.status.status, "live");
  two.unmount();
  assert.equal(made.status.status, "off");
});

test("without the plugin, and outside of a scope, it is said what is missing", () => {
  assert.throws(() => scoped(() => useDualcast()), /createDualcast/);
  assert.throws(() => useConnectionStatus({ client: client() }), /setup\(\)/);
});

test("the inbox: pages, arrivals, counters; marks are seen in every list and by the user's other devices", async () => {
  for (const one of ["a", "b", "c"]) await world.server.notify(world.user, one);
  const [here, there] = [client(), client()];
  const pages = [here, here, there].map((made, at) => scoped(() => useNotifications({ client: made, limit: 2, max: at === 1 ? 50 : 51 })));
  world.ends.push(...pages.map(({ stop }) => stop));
  here.connect();
  there.connect();
  const [first, second, other] = pages.map(({ out }) => out);
  for (const one of [first, second, other]) await until(() => one.status.value === "ready" && one.unread.value === 3, "loaded");
  assert.deepEqual([titles(first.notifications), first.hasMore.value], [["c", "b"], true]);
  await first.loadMore();
  assert.deepEqual([titles(first.notifications), first.hasMore.value], [["c", "b", "a"], false]);
  await world.server.notify(world.user, "d");
  for (const one of [first, second, other]) await until(() => one.unread.value === 4 && titles(one.notifications)[0] === "d", "arrived");

  const done = first.markRead(first.notifications.value[0].id);
  assert.deepEqual([first.notifications.value[0].state, second.notifications.value[0].state, first.unread.value, second.unread.value], ["read", "read", 3, 3], "at once");
  await done;
  await until(() => other.unread.value === 3 && other.notifications.value[0].state === "read", "the other device");
  await other.markUnread(other.notifications.value[0].id);
  await until(() => first.unread.value === 4 && first.notifications.value[0].state === "seen", "and back");
  await first.remove([first.notifications.value[0].id]);
  await until(() => titles(other.notifications)[0] === "c", "removed there");
  await first.markRead("all");
  for (const one of [first, second, other]) await until(() => one.unread.value === 0 && one.notifications.value.every(({ state }) => state === "read"), "all read");
  await world.server.call("POST", "/v1/notifications", { to: { user: world.user }, title: "not kept", store: false });
  await world.server.notify(world.user, "kept");
  await until(() => titles(first.notifications)[0] === "kept", "kept");
  assert.deepEqual(titles(first.notifications), ["kept", "c", "b", "a"], "the inbox, and nothing else");
});

test("counters need no list; a list that is not wanted yet is not loaded", async () => {
  await world.server.notify(world.user, "a");
  const made = client();
  let loads = 0;
  const { list } = made.inbox;
  made.inbox.list = (...given) => ((loads += 1), list(...given));
  const enabled = vue.ref(false);
  const { out, stop } = scoped(() => [useUnreadCount({ client: made }), useNotifications({ client: made, enabled })]);
  world.ends.push(stop);
  made.connect();
  const [counters, inbox] = out;
  await until(() => counters.unread.value === 1 && inbox.unseen.value === 1, "counted");
  assert.deepEqual([loads, inbox.status.value], [0, "loading"]);
  enabled.value = true;
  await until(() => titles(inbox.notifications)[0] === "a" && !inbox.loading.value, "loaded");
  assert.equal(loads, 1);
  await assert.rejects(inbox.markSeen({ type: "click" }), TypeError);
});

test("counters never show a mark twice", async () => {
  for (const one of ["a", "b", "c"]) await world.server.notify(world.user, one);
  const made = client();
  const seen = [];
  const { out, stop } = scoped(() => {
    const inbox = useNotifications({ client: made });
    vue.watch(inbox.unread, (count) => seen.push(count), { flush: "sync" });
    return inbox;
  });
  world.ends.push(stop);
  made.connect();
  await until(() => out.unread.value === 3 && out.status.value === "ready", "loaded");
  seen.length = 0;
  await out.markRead(out.notifications.value[0].id);
  await out.markRead(out.notifications.value.map(({ id }) => id));
  assert.deepEqual(seen, [2, 0]);
});

test("a mark that is refused is taken back, and it is said why", async () => {
  await world.server.notify(world.user, "a");
  const made = client();
  const { out, stop } = scoped(() => useNotifications({ client: made }));
  world.ends.push(stop);
  made.connect();
  await until(() => out.unread.value === 1 && out.status.value === "ready", "loaded");
  made.inbox.read = async () => {
    throw Object.assign(new Error("no"), { code: "bus-unavailable" });
  };
  const attempt = out.markRead(out.notifications.value[0].id);
  assert.deepEqual([out.notifications.value[0].state, out.unread.value], ["read", 0]);
  assert.equal(await attempt, false);
  assert.equal(out.actionError.value.code, "bus-unavailable");
  assert.deepEqual([out.notifications.value[0].state, out.unread.value], ["unseen", 1]);
});

test("components that come and go while there is no connection leave no commands behind", async () => {
  await world.server.notify(world.user, "a");
  const made = client();
  for (let number = 0; number < 150; number += 1) scoped(() => [useNotifications({ client: made }), usePresence("lobby", { client: made })]).stop();
  await until(() => !made.channels.length, "nothing is wanted");
  assert.equal(made.listeners, 0);
  const { out, stop } = scoped(() => useNotifications({ client: made }));
  world.ends.push(stop);
  assert.deepEqual([out.loading.value, out.status.value === "ready", titles(out.notifications)], [true, false, []]);
  made.connect();
  await until(() => titles(out.notifications)[0] === "a", "loaded");
  assert.equal(out.error.value, null);
});

test("a client that becomes another user's shows that user's inbox", async () => {
  await world.server.notify(world.user, "mine");
  await world.server.notify("somebody-else", "theirs");
  let sub = world.user;
  const made = client(world.user, { getToken: () => token(sub, { channels: CHANNELS }) });
  const { out, stop } = scoped(() => useNotifications({ client: made }));
  world.ends.push(stop);
  made.connect();
  await until(() => titles(out.notifications)[0] === "mine", "mine");
  made.disconnect();
  sub = "somebody-else";
  made.renew();
  made.connect();
  await until(() => titles(out.notifications)[0] === "theirs" && out.notifications.value.length === 1, "theirs");
});

test("a list of what is unread gets back what is marked as unread", async (t) => {
  t.mock.method(Math, "random", () => 0); // how long many pages spread their reloads
  await world.server.notify(world.user, "a");
  const made = client();
  const shape = [{}, { states: ["unseen", "seen"] }, { states: [] }];
  const pages = shape.map((one) => scoped(() => useNotifications({ client: made, ...one })));
  world.ends.push(...pages.map(({ stop }) => stop));
  made.connect();
  const [all, unread, none] = pages.map(({ out }) => out);
  for (const one of [all, unread, none]) await until(() => titles(one.notifications)[0] === "a", "loaded");
  const [{ id }] = all.notifications.value;
  await all.markRead(id);
  assert.deepEqual(titles(unread.notifications), []);
  await all.markUnread(id);
  await until(() => titles(unread.notifications)[0] === "a", "back");
  assert.equal(await all.markSeen(), true, "without ids: all");
});

test("a component that makes room for another hands its list over; what nobody watches is forgotten", async () => {
  await world.server.notify(world.user, "a");
  const made = client();
  let loads = 0;
  const { list } = made.inbox;
  made.inbox.list = (...given) => ((loads += 1), list(...given));
  made.connect();
  const page = () => scoped(() => useNotifications({ client: made }));
  const first = page();
  await until(() => titles(first.out.notifications)[0] === "a", "loaded");
  first.stop();
  const second = page();
  await Promise.resolve();
  assert.deepEqual([titles(second.out.notifications), loads], [["a"], 1]);
  second.stop();
  await until(() => made.listeners === 0, "no listener left");
  let seen;
  mounted(() => {
    seen = titles(useNotifications({ client: made }).notifications);
  }).unmount();
  assert.deepEqual(seen, [], "not what another user may have seen");
});

test("a composable that is used when its component is mounted already begins at once", async () => {
  const made = client();
  let connection;
  const page = mounted(() => vue.onMounted(() => (connection = useConnectionStatus({ client: made }))));
  assert.equal(made.listeners, 1);
  made.connect();
  await until(() => connection.connected.value, "connected");
  page.unmount();
  assert.equal(made.listeners, 0);
});
