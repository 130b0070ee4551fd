import assert from "node:assert/strict";
import { test } from "node:test";

import { ChannelFeed } from "../../../clients/core/src/stores/channel_feed.js";
import { Hub } from "../../../clients/core/src/stores/hub.js";
import { presenceOf } from "../../../clients/core/src/stores/presence_feed.js";
import { Client, refusal, turn } from "./support/quiet_client.js";

function live(options = {}) {
  const client = new Client();
  client.options = options;
  client.status = { ...client.status, status: "live" };
  return { client, hub: new Hub(client) };
}

const follow = (hub, channel, options) => {
  const feed = new ChannelFeed(hub, channel, options);
  return { feed, off: feed.store.subscribe(() => {}) };
};
const subscribed = ({ asked }) => asked.filter(({ name }) => name === "subscribe").map(({ args }) => args);

test("components share one subscription per channel; the last one ends it", async () => {
  const { client, hub } = live();
  const [a, b] = [follow(hub, "topic:x"), follow(hub, "topic:x")];
  const c = follow(hub, "topic:y");
  await turn();
  assert.deepEqual(subscribed(client), [["topic:x", "topic:y"]], "one command for all of one go");
  client.last("subscribe").resolve();
  await turn();
  assert.equal(a.feed.store.get().status, "subscribed");
  client.publish("topic:x", "price", 1);
  assert.deepEqual([a, b, c].map(({ feed }) => feed.store.get().last?.data), [1, 1, undefined]);
  a.off();
  c.off();
  await turn();
  assert.deepEqual(client.last("unsubscribe").args, ["topic:y"]);
  b.off();
  await turn();
  assert.deepEqual(client.last("unsubscribe").args, ["topic:x"]);
  assert.equal(client.listening, 0);
  assert.equal(hub.channels.size, 0);
});

test("an end and a beginning in one go do not flap", async () => {
  const { client, hub } = live();
  const first = follow(hub, "topic:x");
  await turn();
  client.last("subscribe").resolve();
  await turn();
  first.off();
  const second = follow(hub, "topic:x");
  await turn();
  assert.deepEqual(client.names(), ["subscribe"]);
  second.off();
});

test("channels wait for the connection, and are asked for again when it broke on the way", async () => {
  const { client, hub } = live();
  client.status = { ...client.status, status: "off" };
  const { feed } = follow(hub, "topic:x");
  await turn();
  assert.deepEqual(client.names(), []);
  client.be("live");
  await turn();
  assert.deepEqual(subscribed(client), [["topic:x"]]);
  client.be("off");
  client.last("subscribe").reject(refusal("disconnected"));
  await turn();
  assert.equal(feed.store.get().status, "waiting");
  client.be("live");
  await turn();
  client.last("subscribe").resolve();
  await turn();
  assert.equal(feed.store.get().status, "subscribed");
});

test("a channel that is refused harms no other, and is asked for again after a new start", async () => {
  const { client, hub } = live();
  const [x, y] = [follow(hub, "topic:x"), follow(hub, "room:secret")];
  await turn();
  client.last("subscribe").reject(refusal("forbidden-channel"));
  await turn();
  client.last("subscribe").resolve();
  await turn();
  client.last("subscribe").reject(refusal("forbidden-channel"));
  await turn();
  assert.deepEqual(subscribed(client), [["topic:x", "room:secret"], ["topic:x"], ["room:secret"]]);
  assert.equal(x.feed.store.get().status, "subscribed");
  assert.deepEqual([y.feed.store.get().status, y.feed.store.get().error.code], ["refused", "forbidden-channel"]);
  client.be("live");
  await turn();
  assert.equal(subscribed(client).length, 3);
  client.be("off");
  client.be("live");
  await turn();
  assert.deepEqual(subscribed(client).at(-1), ["room:secret"]);
});

test("where a forbidden channel ends the connection, it goes on without it", async () => {
  const { client, hub } = live();
  const [x, y] = [follow(hub, "topic:x"), follow(hub, "room:secret")];
  const stop = async () => {
    client.be("stopped", { stopped: { code: 4003, reason: "forbidden" } });
    client.last("subscribe").reject(refusal("forbidden"));
    await turn();
  };
  await turn();
  await stop();
  assert.deepEqual(subscribed(client).at(-1), ["topic:x"]);
  client.last("subscribe").resolve();
  await turn();
  await stop();
  assert.deepEqual([x, y].map(({ feed }) => feed.store.get().status), ["subscribed", "refused"]);
  assert.equal(client.status.status, "live");
  assert.equal(client.names().filter((name) => name === "connect").length, 2);
  client.be("stopped", { stopped: { code: 4003, reason: "forbidden" } }); // a grant that ended while away
  await turn();
  await stop();
  assert.deepEqual([x, y].map(({ feed }) => feed.store.get().status), ["refused", "refused"]);
  client.be("stopped", { stopped: { code: 4003, reason: "forbidden" } }); // not for a channel of a component
  await turn();
  assert.equal(client.status.status, "stopped");
});

test("a channel the server takes away is an error", async () => {
  const { client, hub } = live();
  const { feed } = follow(hub, "room:a");
  client.emit("unsubscribed", { channels: ["room:a"] });
  assert.deepEqual([feed.store.get().status, feed.store.get().error.code], ["refused", "unsubscribed"]);
});

test("a feed filters, is bounded, tells each event once, and keeps the newest gap", async () => {
  const { client, hub } = live();
  const { feed, off } = follow(hub, "topic:x", { events: ["price"], limit: 3 });
  const seen = [];
  feed.onEvent = ({ data }) => seen.push(data);
  for (let n = 0; n < 5; n += 1) client.publish("topic:x", "price", n);
  client.publish("topic:x", "weather", 9);
  assert.deepEqual(feed.store.get().events.map(({ data }) => data), [2, 3, 4]);
  assert.deepEqual(seen, [0, 1, 2, 3, 4]);
  client.emit("gap", { channel: "topic:x", reason: "late" }); // the client fills these
  assert.equal(feed.store.get().gap, null);
  client.emit("gap", { channel: "topic:x", reason: "trimmed" });
  assert.equal(feed.store.get().gap.reason, "trimmed");
  feed.clear();
  assert.deepEqual([feed.store.get().gap, feed.store.get().last, feed.store.get().events], [null, null, []]);
  off();
  for (const limit of [0, 1]) {
    const one = follow(hub, "topic:x", { limit });
    for (let n = 0; n < 3; n += 1) client.publish("topic:x", "price", n);
    assert.equal(one.feed.store.get().events.length, limit);
    assert.equal(one.feed.store.get().last.data, 2);
    one.off();
  }
});

test("a listener that throws harms no other", async () => {
  const { client, hub } = live();
  const caught = [];
  const own = process.listeners("uncaughtException");
  process.removeAllListeners("uncaughtException");
  process.on("uncaughtException", (error) => caught.push(error.message));
  const [a, b] = [follow(hub, "topic:x"), follow(hub, "topic:x")];
  a.feed.onEvent = () => {
    throw new Error("mine");
  };
  client.publish("topic:x", "price", 1);
  await turn();
  assert.equal(b.feed.store.get().last.data, 1);
  assert.deepEqual(caught, ["mine"]);
  process.removeAllListeners("uncaughtException");
  for (const one of own) process.on("uncaughtException", one);
});

test("a task has its newest state, also for who comes later", async () => {
  const { client, hub } = live();
  follow(hub, "task:T");
  client.emit("state", { channel: "task:T", data: { revision: 3 } });
  client.publish("task:T", "task", { revision: 5 });
  client.publish("task:T", "task", { revision: 4 });
  client.emit("state", { channel: "task:T", data: { revision: 2 } });
  const { feed } = follow(hub, "task:T");
  assert.equal(feed.store.get().state.data.revision, 5);
});

test("a channel of the client's own options is not subscribed to, nor left; its state is known", async () => {
  const { client, hub } = live({ channels: ["presence:p", "topic:x"] });
  const watch = hub.channels.watch();
  client.emit("state", { channel: "presence:p", data: { members: [{ user: "a", devices: [] }], count: 1, revision: 1, more: false } });
  client.emit("state", { channel: "presence:other", data: { members: [], count: 0, revision: 1, more: false } });
  const presence = presenceOf(hub.channels, "presence:p");
  const off = presence.subscribe(() => {});
  const { off: offX } = follow(hub, "topic:x");
  await turn();
  assert.equal(presence.get().count, 1);
  off();
  offX();
  watch();
  await turn();
  assert.deepEqual(client.names(), []);
  assert.equal(hub.channels.size, 1, "no other state is kept");
});

test("StrictMode: a provider that is unmounted and mounted again keeps its connection", async () => {
  const client = new Client();
  const hub = new Hub(client);
  const first = hub.keep();
  first();
  first();
  const second = hub.keep();
  await turn();
  assert.deepEqual(client.names(), ["connect"]);
  second();
  await turn();
  assert.deepEqual(client.names(), ["connect", "disconnect"]);
});

test("a client that was connected before is left connected, an own one is not", async () => {
  const { client, hub } = live();
  hub.keep()();
  await turn();
  assert.deepEqual(client.names(), []);
  hub.own()();
  await turn();
  assert.deepEqual(client.names(), ["disconnect"]);
});

test("a channel of the client's own that was refused is asked for when a component wants it", async () => {
  const { client, hub } = live({ channels: ["room:a"] });
  client.channels = [];
  const { feed } = follow(hub, "room:a");
  await turn();
  assert.deepEqual(subscribed(client).at(-1), ["room:a"]);
  client.emit("unsubscribed", { channels: ["room:a"], reason: "forbidden-channel" });
  assert.deepEqual([feed.store.get().status, feed.store.get().error.code], ["refused", "forbidden-channel"]);
});
