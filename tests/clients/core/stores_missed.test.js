// What a page would miss without a word: a connection that stays is no occasion to ask again, and a hole looks like nothing.

import assert from "node:assert/strict";
import { test } from "node:test";

import { ChannelFeed } from "../../../clients/core/src/stores/channel_feed.js";
import { Hub } from "../../../clients/core/src/stores/hub.js";
import { Inbox } from "../../../clients/core/src/stores/inbox.js";
import { Client, page, refusal, turn } from "./support/quiet_client.js";

const CHANNEL = "topic:x";

function followed(options = {}) {
  const client = new Client();
  client.options = options;
  client.status = { ...client.status, status: "live" };
  const hub = new Hub(client);
  const feed = new ChannelFeed(hub, CHANNEL);
  return { client, hub, feed, off: feed.store.subscribe(() => {}) };
}

/** A publication of that second. */
const at = (client, second, more) => client.publish(CHANNEL, "price", second, { time: `2026-01-01T00:00:0${second}.000Z`, ...more });
const values = (feed) => feed.store.get().events.map(({ data }) => data);

test("a channel that could not be asked for is asked for again on the same connection, until it is or nobody wants it", async (t) => {
  t.mock.timers.enable({ apis: ["setTimeout"] });
  const { client, feed, off } = followed();
  await turn();
  for (const code of ["bus-unavailable", "rate-limited", "timeout"]) {
    const { length } = client.asked;
    client.last("subscribe").reject(refusal(code));
    await turn();
    assert.equal(client.asked.length, length, "not at once");
    t.mock.timers.tick(30_000);
    await turn();
    assert.equal(client.asked.length, length + 1);
  }
  client.last("subscribe").resolve();
  await turn();
  assert.equal(feed.store.get().status, "subscribed");
  off();
  await turn();

  const other = new ChannelFeed(new Hub(client), CHANNEL);
  const end = other.store.subscribe(() => {});
  await turn();
  client.last("subscribe").reject(refusal("bus-unavailable"));
  await turn();
  end();
  await turn();
  const { length } = client.asked;
  t.mock.timers.tick(30_000);
  await turn();
  assert.equal(client.asked.length, length);
});

test("a list that could not be loaded is loaded again on the same connection, one that may not be is not", async (t) => {
  t.mock.timers.enable({ apis: ["setTimeout"] });
  const client = new Client();
  const list = new Inbox(client).list();
  const off = list.store.subscribe(() => {});
  client.be("live");
  client.last("list").reject(refusal("bus-unavailable"));
  await turn();
  assert.deepEqual([list.store.get().status, list.store.get().stale], ["error", true]);
  t.mock.timers.tick(30_000);
  client.last("list").resolve(page(["a"]));
  await turn();
  assert.deepEqual([list.store.get().status, list.store.get().stale], ["ready", false]);
  client.emit("gap", { channel: "all", reason: "trimmed" });
  t.mock.timers.tick(30_000);
  client.last("list").reject(Object.assign(refusal("status-502"), { retryable: true }));
  await turn();
  t.mock.timers.tick(30_000);
  client.last("list").resolve(page(["b"]));
  await turn();
  assert.deepEqual([list.store.get().notifications[0].id, list.store.get().stale, list.store.get().error], ["b", false, null]);
  void list.reload();
  client.last("list").reject(refusal("forbidden"));
  await turn();
  const { length } = client.asked;
  t.mock.timers.tick(30_000);
  assert.equal(client.asked.length, length);
  off();
  await turn();
});

test("nobody's list is not loaded: it would not hear what changes until somebody looks", async () => {
  const client = new Client();
  client.status = { ...client.status, status: "live" };
  const list = new Inbox(client).list();
  await list.reload();
  assert.deepEqual(client.names(), []);
  const off = list.store.subscribe(() => {});
  assert.deepEqual(client.names(), ["list"]);
  off();
  await turn();
});

test("what is recovered late stands where it belongs, and is not the last", () => {
  const { client, feed, off } = followed();
  at(client, 1, { recovered: true });
  assert.equal(feed.store.get().last.data, 1, "there was none");
  at(client, 5);
  at(client, 3, { recovered: true });
  at(client, 2, { recovered: true });
  assert.deepEqual(values(feed), [1, 2, 3, 5]);
  assert.equal(feed.store.get().last.data, 5);
  at(client, 7, { recovered: true }); // what a gap had kept back, when nothing came since
  assert.deepEqual([values(feed).at(-1), feed.store.get().last.data], [7, 7]);
  off();
});

test("a hole that history cannot fill is told, also where the client fills what it can", () => {
  for (const [backfill, told] of [["all", ["trimmed"]], [undefined, ["trimmed"]], ["none", ["late", "trimmed"]]]) {
    const { client, feed, off } = followed({ backfill });
    const heard = [];
    feed.onGap = ({ reason }) => heard.push(reason);
    for (const reason of ["late", "trimmed"]) client.emit("gap", { channel: CHANNEL, reason });
    assert.deepEqual(heard, told);
    assert.equal(feed.store.get().gap.reason, "trimmed");
    off();
  }
});

test("a component that was hidden begins anew: nobody listened meanwhile", async () => {
  const { client, feed, off } = followed();
  at(client, 1);
  off();
  const back = feed.store.subscribe(() => {}); // in one go: StrictMode, or an edited file
  await turn();
  assert.deepEqual(values(feed), [1]);
  back();
  await turn();
  at(client, 2);
  const again = feed.store.subscribe(() => {});
  assert.deepEqual([feed.store.get().last, values(feed)], [null, []]);
  at(client, 3);
  assert.deepEqual(values(feed), [3]);
  again();
});

test("many channels that are left in one go are one command, and make room for as many that were too many", async () => {
  const { client, hub, off } = followed();
  const follow = (channel) => {
    const feed = new ChannelFeed(hub, channel);
    return { feed, off: feed.store.subscribe(() => {}) };
  };
  await turn();
  client.last("subscribe").resolve();
  await turn();
  const more = ["topic:y", "topic:z"].map(follow);
  await turn();
  client.last("subscribe").reject(refusal("too-many-channels"));
  for (let n = 0; n < 2; n += 1) {
    await turn();
    client.last("subscribe").reject(refusal("too-many-channels"));
  }
  await turn();
  assert.deepEqual(more.map(({ feed }) => feed.store.get().error?.code), ["too-many-channels", "too-many-channels"]);
  off();
  await turn();
  assert.deepEqual(client.asked.slice(-2).map(({ name, args }) => [name, ...args]), [["unsubscribe", CHANNEL], ["subscribe", "topic:y"]]);
  client.last("subscribe").resolve();
  await turn();
  assert.deepEqual(more.map(({ feed }) => feed.store.get().status), ["subscribed", "refused"]);
  const many = Array.from({ length: 150 }, (_, n) => follow(`topic:${n}`));
  await turn();
  client.last("subscribe").resolve();
  await turn();
  for (const one of many) one.off();
  await turn();
  assert.deepEqual(client.asked.filter(({ name }) => name === "unsubscribe").map(({ args }) => args.length), [1, 150]);
  for (const one of more) one.off();
  await turn();
});

test("a channel that is left and wanted again in the turns of one go is subscribed to", async () => {
  const { client, hub, off } = followed();
  await turn();
  client.last("subscribe").resolve();
  await turn();
  const other = new ChannelFeed(hub, "topic:y");
  const end = other.store.subscribe(() => {}); // about to be asked for
  off();
  await Promise.resolve();
  const again = new ChannelFeed(hub, CHANNEL);
  const last = again.store.subscribe(() => {});
  await turn();
  for (let n = 0; n < 2; n += 1) {
    client.last("subscribe").resolve();
    await turn();
  }
  const commands = client.asked.filter(({ args }) => args.includes(CHANNEL)).map(({ name }) => name);
  assert.ok(["subscribe", "subscribe,unsubscribe,subscribe"].includes(commands.join()), commands.join());
  assert.equal(again.store.get().status, "subscribed");
  end();
  last();
  await turn();
});
