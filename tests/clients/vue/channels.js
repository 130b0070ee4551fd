// Channels and presence against a real server.

import assert from "node:assert/strict";
import { test } from "node:test";
import { token, until } from "../core/support/server.js";
import { dualcast, mounted, scoped, vue } from "./support.js";
import { CHANNELS, client, live, world } from "./world.js";

const { createDualcast, useChannel, usePresence } = dualcast;

test("channels are counted: the first subscribes, the last unsubscribes", async () => {
  const made = client();
  const calls = [];
  for (const name of ["subscribe", "unsubscribe"]) {
    const own = made[name].bind(made);
    made[name] = (...channels) => (calls.push([name, ...channels]), own(...channels));
  }
  made.connect();
  const pages = [0, 1].map(() => scoped(() => useChannel("topic:a", { client: made, limit: 2 })));
  for (const { out } of pages) await until(() => out.status.value === "subscribed", "subscribed");
  for (const value of [1, 2, 3]) await world.server.publish("topic:a", "price", value);
  for (const { out } of pages) await until(() => out.last.value?.data === 3, "all three");
  assert.deepEqual(pages[0].out.events.value.map(({ data }) => data), [2, 3], "bounded");
  pages[0].stop();
  pages[0].stop();
  await world.server.publish("topic:a", "price", 4);
  await until(() => pages[1].out.last.value?.data === 4, "the other one goes on");
  assert.equal(pages[0].out.last.value.data, 3);
  pages[1].stop();
  const next = scoped(() => useChannel("topic:a", { client: made }));
  await new Promise((done) => setTimeout(done));
  assert.deepEqual(calls, [["subscribe", "topic:a"]], "one that makes room for another changes nothing");
  next.stop();
  await until(() => !made.channels.length, "unsubscribed");
  assert.deepEqual(calls[1], ["unsubscribe", "topic:a"]);
  await until(() => made.listeners === 0, "no listener");
});

test("a channel that changes, that is forbidden, that is only these events", async () => {
  const made = client();
  made.connect();
  const name = vue.ref("topic:a");
  const heard = [];
  const { out, stop } = scoped(() => useChannel(name, { client: made, events: ["price"], onEvent: ({ data }) => heard.push(data) }));
  world.ends.push(stop);
  await until(() => out.status.value === "subscribed", "subscribed");
  await world.server.publish("topic:a", "noise", 0);
  await world.server.publish("topic:a", "price", 1);
  await until(() => heard.length, "heard");
  name.value = "task:of-somebody";
  await vue.nextTick();
  assert.deepEqual(out.events.value, []);
  await until(() => out.error.value, "refused");
  assert.deepEqual([out.error.value.code, out.status.value], ["forbidden-channel", "refused"]);
  name.value = null;
  await vue.nextTick();
  assert.deepEqual([out.error.value, made.channels], [null, []]);
  name.value = "topic:b";
  await until(() => out.status.value === "subscribed" && made.channels.join() === "topic:b", "another");
  await world.server.publish("topic:a", "price", 2);
  await world.server.publish("topic:b", "price", 3);
  await until(() => heard.at(-1) === 3, "heard again");
  assert.deepEqual(heard, [1, 3]);
});

test("a subscription that a disconnect cut short is made with the next connection", async () => {
  const made = client();
  made.connect();
  await live(made);
  const { out, stop } = scoped(() => useChannel("topic:a", { client: made }));
  world.ends.push(stop);
  await Promise.resolve();
  made.disconnect();
  await new Promise((done) => setTimeout(done));
  assert.deepEqual([out.status.value, out.error.value], ["waiting", null]);
  made.connect();
  await until(() => out.status.value === "subscribed", "subscribed");
});

for (const transport of ["websocket", "fetch"]) {
  test(`a channel that is forbidden harms no other and not the connection (${transport})`, async () => {
    let channels = CHANNELS;
    const made = client(world.user, { transports: [transport], getToken: () => token(world.user, { channels }) });
    const page = mounted(() => ["topic:a", "task:of-somebody", "topic:b"].map((name) => useChannel(name)), createDualcast(made, { connect: true }));
    world.ends.push(page.unmount);
    const [a, odd, b] = page.out;
    await until(() => a.status.value === "subscribed" && b.status.value === "subscribed" && odd.status.value === "refused", "each its own");
    assert.equal(odd.error.value.code, "forbidden-channel");
    await live(made);
    await world.server.publish("topic:b", "price", 1);
    await until(() => b.last.value?.data === 1, "goes on");
    // While it is away one of them is taken from the user.
    channels = ["topic:b"];
    made.disconnect();
    made.renew();
    made.connect();
    await until(() => made.status.status === "live" && a.status.value === "refused" && b.status.value === "subscribed", "without it");
    await world.server.publish("topic:b", "price", 2);
    await until(() => b.last.value?.data === 2, "and on");
  });
}

test("a listener that throws harms no other", async (t) => {
  const made = client();
  made.connect();
  const thrown = [];
  const others = process.listeners("uncaughtException");
  process.removeAllListeners("uncaughtException").on("uncaughtException", (error) => thrown.push(error.message));
  t.after(() => {
    process.removeAllListeners("uncaughtException");
    for (const one of others) process.on("uncaughtException", one);
  });
  const onEvent = () => {
    throw new Error("of the application");
  };
  const pages = [{ onEvent }, {}].map((more) => scoped(() => useChannel("topic:a", { client: made, ...more })));
  world.ends.push(...pages.map(({ stop }) => stop));
  for (const { out } of pages) await until(() => out.status.value === "subscribed", "subscribed");
  await world.server.publish("topic:a", "price", 1);
  await until(() => pages[1].out.last.value && thrown.length, "heard");
  assert.deepEqual(thrown, ["of the application"]);
});

test("a channel that the application subscribed to stays subscribed", async () => {
  const made = client(world.user, { channels: ["topic:own"] });
  made.connect();
  await live(made);
  const { out, stop } = scoped(() => useChannel("topic:own", { client: made }));
  assert.equal(out.status.value === "subscribed", true);
  stop();
  await new Promise((done) => setTimeout(done));
  assert.deepEqual(made.channels, ["topic:own"]);
});

test("the state of a task, and its changes, also for a component that comes later", async () => {
  await world.server.call("PUT", "/v1/tasks/T1", { owner: world.user, total_steps: 4 });
  const made = client();
  made.connect();
  const first = scoped(() => useChannel("task:T1", { client: made }));
  world.ends.push(first.stop);
  await until(() => first.out.state.value?.data.id === "T1", "the state");
  await world.server.call("POST", "/v1/tasks/T1", { step: 2 });
  await until(() => first.out.state.value.data.step === 2, "the change");
  const second = scoped(() => useChannel("task:T1", { client: made }));
  world.ends.push(second.stop);
  assert.equal(second.out.state.value.data.step, 2);
});

test("presence: who is there, who comes and goes, also for a component that comes later", async () => {
  const room = `room-${world.user}`;
  const [alice, bob] = [client(`${world.user}-a`), client(`${world.user}-b`)];
  alice.connect();
  bob.connect();
  const seen = scoped(() => usePresence(room, { client: alice }));
  world.ends.push(seen.stop);
  await until(() => seen.out.isOnline(`${world.user}-a`), "oneself");
  await bob.subscribe(`presence:${room}`);
  await until(() => seen.out.count.value === 2 && seen.out.isOnline(`${world.user}-b`), "bob comes");
  const late = scoped(() => usePresence(() => `presence:${room}`, { client: bob }));
  await until(() => late.out.count.value === 2 && late.out.isOnline(`${world.user}-a`), "the state is asked for");
  late.stop();
  await bob.unsubscribe(`presence:${room}`);
  await until(() => seen.out.count.value === 1 && !seen.out.isOnline(`${world.user}-b`), "bob goes");
});

test("a gap is told to who was there, and forgotten with clear() or another channel; what the client fills itself is none", () => {
  const heard = {};
  const options = {};
  const on = (type, listener) => ((heard[type] = listener), () => {});
  const made = { options, on, status: { status: "off" }, channels: [], unsubscribe: async () => {} };
  const name = vue.ref("topic:a");
  const told = [];
  const { out, stop } = scoped(() => useChannel(name, { client: made, onGap: ({ reason }) => told.push(reason) }));
  const gap = (reason, channel = "topic:a") => heard.gap({ channel, reason, backfill: async () => 0 });
  gap("late");
  gap("trimmed", "topic:b");
  assert.equal(out.gap.value, null);
  gap("trimmed");
  assert.equal(out.gap.value.reason, "trimmed");
  const later = scoped(() => useChannel("topic:a", { client: made }));
  assert.equal(later.out.gap.value, null, "it shows nothing that could have a hole");
  out.clear();
  assert.equal(out.gap.value, null);
  options.backfill = "all";
  gap("late");
  assert.equal(out.gap.value, null);
  gap("trimmed");
  assert.equal(out.gap.value.reason, "trimmed", "what history has not, nobody fills");
  assert.deepEqual(told, ["trimmed", "trimmed"]);
  later.stop();
  stop();
});
