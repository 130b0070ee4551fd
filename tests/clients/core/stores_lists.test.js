// The list of an inbox and its counters in any order of news, and who is in a room.

import assert from "node:assert/strict";
import { test } from "node:test";

import { hubOf, presenceOf } from "../../../clients/core/src/stores/index.js";
import { Inbox } from "../../../clients/core/src/stores/inbox.js";
import { brings } from "../../../clients/core/src/stores/inbox_state.js";
import { change, state, unknown } from "../../../clients/core/src/stores/presence.js";
import { Client, item, page, refusal, turn } from "./support/quiet_client.js";

/** An inbox whose first page is on its way. */
function asked(options = {}) {
  const client = new Client();
  const inbox = new Inbox(client, 0);
  const list = inbox.list(options);
  client.be("live");
  list.store.subscribe(() => {});
  inbox.badge.subscribe(() => {});
  const shown = () => list.store.get().notifications.map(({ id, state }) => `${id}:${state}`);
  const loaded = async (...given) => {
    client.last("list").resolve(page(...given));
    await turn();
  };
  return { client, inbox, list, shown, loaded };
}

test("what a connection catches up on does not come before what is newer", async () => {
  const { client, shown, loaded } = asked();
  await loaded(["n9", "n8"], { revision: [20, 1], next: "8" });
  client.notify("n2", [12, 1]);
  client.changed("read", null, [13, 1]);
  assert.deepEqual(shown(), ["n9:unseen", "n8:unseen"], "an old `read all` does not mean the new ones");
  client.notify("n10", [21, 1]);
  assert.equal(shown()[0], "n10:unseen");
  client.notify("v", 1);
  client.notify("w", 2);
  assert.deepEqual(shown(), ["w:unseen", "n10:unseen", "n9:unseen", "n8:unseen"]);
});

test("marks raise, unread brings back, deleted and archived leave", async () => {
  const { client, shown, loaded } = asked();
  await loaded(["d", "c", "b", "a"], { revision: [10, 1] });
  const mark = (action, ids, revision, more = {}) =>
    client.publish("user:alice", "inbox", { action, ids, unread: 0, unseen: 0, revision: [revision, 1], ...more });
  mark("read", ["b"], 11);
  mark("seen", null, 12);
  assert.deepEqual(shown(), ["d:seen", "c:seen", "b:read", "a:seen"], "seen lowers nothing");
  mark("deleted", null, 13, { states: ["read"] });
  assert.deepEqual(shown(), ["d:seen", "c:seen", "a:seen"]);
  mark("read", ["a"], 14);
  mark("unread", null, 15);
  assert.deepEqual(shown(), ["d:seen", "c:seen", "a:seen"]);
  mark("archived", ["d", "x"], 16);
  assert.deepEqual(shown(), ["c:seen", "a:seen"]);
});

test("a mark that the page was too early for holds after it", async () => {
  const { client, shown, loaded, list } = asked();
  client.changed("read", ["a"], [11, 1]);
  client.changed("read", ["b"], [9, 1]);
  await loaded(["b", "a"], { revision: [10, 1] });
  assert.deepEqual(shown(), ["b:unseen", "a:read"]);
  void list.reload();
  client.changed("unread", ["a"], [9, 1]);
  await loaded([item("a", "read")], { revision: [10, 1] });
  assert.deepEqual(shown(), ["a:read"]);
});

test("a reply that is older than the page does not mean what the page has", async () => {
  const { client, inbox, shown, loaded, list } = asked();
  await loaded(["a"], { revision: [10, 1] });
  const done = inbox.mark("read", "all");
  void list.reload();
  await loaded(["b", item("a", "read")], { revision: [12, 1] });
  client.last("read").resolve({ action: "read", ids: null, inbox: { revision: [11, 1] } });
  await done;
  assert.deepEqual(shown(), ["b:unseen", "a:read"]);
});

test("all: also what is not in the list, and not what came after it was asked", async () => {
  const { client, inbox, shown, loaded } = asked();
  await loaded(["a"], { next: "1", revision: [10, 1] });
  client.count(9, 4, [10, 1]);
  const done = inbox.mark("read", "all");
  assert.deepEqual(inbox.badge.get(), { unread: 0, unseen: 0 });
  client.count(10, 5, [11, 1]);
  client.notify("b", [11, 1]);
  assert.deepEqual([shown(), inbox.badge.get()], [["b:unseen", "a:read"], { unread: 1, unseen: 1 }]);
  client.count(0, 0, [12, 1]);
  client.last("read").resolve({ action: "read", ids: null, inbox: { unread: 0, unseen: 0, revision: [12, 1] } });
  await done;
  assert.deepEqual([shown(), inbox.badge.get()], [["b:read", "a:read"], { unread: 0, unseen: 0 }]);
});

test("what an action does to the counters outlives a notification that comes meanwhile", async () => {
  const { client, inbox, loaded } = asked();
  await loaded(["b", "a"], { revision: [1, 1] });
  client.count(2, 2, [1, 1]);
  const done = inbox.mark("read", "a");
  client.count(3, 3, [2, 1]);
  client.notify("c", [2, 1]);
  assert.deepEqual(inbox.badge.get(), { unread: 2, unseen: 2 });
  client.count(4, 4, [2, 2]);
  client.notify("d", 2);
  assert.deepEqual(inbox.badge.get(), { unread: 3, unseen: 3 });
  client.count(3, 3, [3, 2]);
  client.last("read").resolve({ action: "read", ids: ["a"], inbox: { unread: 3, unseen: 3, revision: [3, 2] } });
  await done;
  assert.deepEqual(inbox.badge.get(), { unread: 3, unseen: 3 });
});

test("what are no ids is rejected, and nothing is asked; a quiet refusal is not told", async () => {
  const { client, inbox, shown, loaded } = asked();
  await loaded(["a"]);
  const event = {};
  event.view = event;
  client.asked = [];
  for (const ids of [event, [event], [1], undefined, null]) await assert.rejects(inbox.mark("seen", ids), TypeError);
  assert.deepEqual([client.asked, inbox.pending, shown()], [[], [], ["a:unseen"]]);
  const done = inbox.mark("seen", ["a"], true);
  client.last("seen").reject(refusal("internal"));
  assert.deepEqual([await done, inbox.failure.get()], [false, null]);
});

test("components that ask for the same have the same list; many different ones are bounded", async () => {
  const { client, inbox, list } = asked({ limit: 5 });
  assert.equal(inbox.list({ limit: 5 }), list);
  assert.notEqual(inbox.list({ limit: 6 }), list);
  for (let limit = 7; limit < 40; limit += 1) inbox.list({ limit });
  assert.equal(inbox.list({ limit: 5 }), list, "it is in use");
  assert.deepEqual(client.names(), ["list"]);
});

test("loading: before a connection too, and while a page is under way", async () => {
  const client = new Client();
  const list = new Inbox(client, 0).list({ states: [] });
  list.store.subscribe(() => {});
  const seen = () => [list.store.get().status, list.store.get().loading];
  assert.deepEqual(seen(), ["loading", true]);
  client.be("live");
  assert.deepEqual(client.last("list").args, [{ limit: 20, states: ["unseen", "seen", "read", "archived"] }]);
  client.last("list").reject(refusal("forbidden"));
  await turn();
  assert.deepEqual(seen(), ["error", false]);
  void list.reload();
  assert.deepEqual(seen(), ["loading", true]);
  client.last("list").resolve(page(["a"]));
  await turn();
  assert.deepEqual(seen(), ["ready", false]);
});

test("which action may bring something into a list that it did not have", () => {
  const all = ["seen", "read", "unread", "archived", "deleted", "withdrawn"];
  const bringing = (states) => all.filter((action) => brings(action, states));
  assert.deepEqual(bringing(["unseen", "seen", "read"]), []);
  assert.deepEqual(bringing(["unseen", "seen"]), ["unread"]);
  assert.deepEqual(bringing(["read"]), ["read"]);
  assert.deepEqual(bringing(["archived"]), ["archived"]);
});

test("presence: of two words about one user the higher is right, whatever their order; those who left are bounded", () => {
  const all = (users, revision) => ({ data: { members: users.map((user) => ({ user, devices: ["web"] })), count: users.length, revision, more: false } });
  const event = (revision, joined, left, count) => ({ joined, left, count, revision });
  const names = ({ view }) => view.members.map(({ user }) => user);
  const left = change(change(state(unknown(), all([], 1)), event(4, [], ["a"], 0)), event(3, ["a"], [], 1));
  assert.deepEqual(names(left), []);
  const here = change(change(state(unknown(), all([], 1)), event(4, ["a"], [], 1)), event(3, [], ["a"], 0));
  assert.deepEqual([names(here), here.view.count], [["a"], 1]);
  const crowd = Array.from({ length: 50 }, (_, at) => `u${at}`);
  let many = change(state(unknown(), all([], 1), 10), event(2, crowd, [], 50), 10);
  many = change(many, event(3, [], crowd.map((user) => `gone-${user}`), 50), 10);
  assert.deepEqual([many.view.members.length, many.view.count, many.view.more, many.users.size], [10, 50, true, 20]);
});

test("presence: the kind may be left out, a refusal is a status, and a channel of the application's own is left alone", async () => {
  const client = new Client();
  client.status = { ...client.status, status: "live" };
  client.channels = ["presence:own"];
  const { channels } = hubOf(client);
  const [room, own] = ["lobby", "presence:own"].map((name) => presenceOf(channels, name));
  const offs = [room.subscribe(() => {}), own.subscribe(() => {})];
  assert.equal(room.get(), room.get());
  await turn();
  assert.deepEqual(client.last("subscribe").args, ["presence:lobby"]);
  assert.deepEqual(client.last("presence").args, [{ channel: "presence:own" }], "its state came before");
  client.last("presence").resolve({ data: { members: [{ user: "a", devices: [] }], count: 1, revision: 1, more: false } });
  client.last("subscribe").reject(refusal("forbidden-channel"));
  await turn();
  assert.deepEqual([own.get().status, own.get().count], ["ready", 1]);
  assert.deepEqual([room.get().status, room.get().error.code], ["refused", "forbidden-channel"]);
  for (const off of offs) off();
  await turn();
  assert.equal(client.last("unsubscribe"), undefined);
  assert.equal(client.listening, 0);
});
