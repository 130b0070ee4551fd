import assert from "node:assert/strict";
import { test } from "node:test";

import { Inbox } from "../../../clients/core/src/stores/inbox.js";
import { Client, item, page, refusal, turn } from "./support/quiet_client.js";

/** An inbox somebody looks at. */
async function shown(answer = page(["b", "a"]), options = {}) {
  const client = new Client();
  const inbox = new Inbox(client, 0);
  const list = inbox.list(options);
  client.be("live");
  const off = list.store.subscribe(() => {});
  const offBadge = inbox.badge.subscribe(() => {});
  client.last("list").resolve(answer);
  await turn();
  const ids = () => list.store.get().notifications.map(({ id, state }) => (state === "unseen" ? id : `${id}:${state}`));
  const end = async () => {
    off();
    offBadge();
    await turn();
  };
  return { client, inbox, list, ids, end };
}

test("a list is loaded when there is a connection, and listens to nothing afterwards", async () => {
  const client = new Client();
  const list = new Inbox(client).list({ limit: 10, kinds: ["alert"] });
  const off = list.store.subscribe(() => {});
  assert.deepEqual(client.names(), []);
  assert.equal(list.store.get().status, "loading");
  client.be("live");
  client.be("live", { transport: "sse" });
  assert.deepEqual(client.names(), ["list"]);
  assert.deepEqual(client.last("list").args, [{ limit: 10, kinds: ["alert"], states: ["unseen", "seen", "read"] }]);
  client.last("list").resolve(page(["a"]));
  await turn();
  assert.equal(list.store.get().status, "ready");
  off();
  await turn();
  assert.equal(client.listening, 0);
  assert.equal(list.store.get().notifications.length, 0);
});

test("StrictMode: an end and a beginning in one go load once", async () => {
  const { client, list, ids, end } = await shown();
  const off = list.store.subscribe(() => {});
  await end();
  assert.deepEqual(ids(), ["b", "a"]);
  assert.deepEqual(client.names(), ["list"]);
  off();
});

test("what is published meanwhile stands on top, once, and only what the inbox kept", async () => {
  const { client, ids } = await shown();
  client.notify("c", [2, 1]);
  client.notify("c", [2, 1]);
  client.notify("w", 2);
  client.notify("old", [1, 1]); // the page had it, or it was deleted before
  client.publish("user:alice", "notification", item("not kept"));
  client.publish("user:bob", "notification", item("another's"), { inbox: { revision: [9, 1] } });
  assert.deepEqual(ids(), ["w", "c", "b", "a"]);
});

test("kinds and states keep out what is not asked for", async () => {
  const { client, ids } = await shown(page(["b", "a"]), { kinds: ["alert"], states: ["unseen"] });
  client.notify("c", [2, 1], { type: "system" });
  client.notify("d", [3, 1]);
  client.changed("seen", ["a"], [4, 1]);
  assert.deepEqual(ids(), ["d", "b"]);
});

test("what happens to the inbox elsewhere happens here", async () => {
  const { client, ids } = await shown(page(["d", "c", "b", "a"]));
  client.changed("read", ["a"], [2, 1]);
  client.changed("seen", ["a", "b"], [3, 1]);
  client.changed("archived", ["c"], [4, 1]);
  client.changed("deleted", ["d"], [5, 1]);
  assert.deepEqual(ids(), ["b:seen", "a:read"]);
  client.changed("unread", ["a"], [6, 1]);
  client.changed("deleted", ["b"], [1, 1]); // before the page was written
  assert.deepEqual(ids(), ["b:seen", "a:seen"]);
  client.publish("all", "inbox", { action: "withdrawn", ids: ["b"], tenant_revision: 2 });
  client.changed("read", null, [7, 1]);
  assert.deepEqual(ids(), ["a:read"]);
});

test("an action shows at once, with its counters, and is undone when the server refuses it", async () => {
  const { client, inbox, ids } = await shown();
  client.count(2, 2, [1, 1]);
  const done = inbox.mark("read", "a");
  assert.deepEqual(ids(), ["b", "a:read"]);
  assert.deepEqual(inbox.badge.get(), { unread: 1, unseen: 1 });
  client.last("read").reject(refusal("rate-limited"));
  assert.equal(await done, false);
  assert.deepEqual(ids(), ["b", "a"]);
  assert.deepEqual(inbox.badge.get(), { unread: 2, unseen: 2 });
  assert.equal(inbox.failure.get().code, "rate-limited");
});

test("an undone action leaves the one after it alone", async () => {
  const { client, inbox, ids } = await shown();
  client.count(2, 2, [1, 1]);
  const first = inbox.mark("read", ["a"]);
  const refused = client.last("read");
  const second = inbox.mark("deleted", ["b"]);
  assert.deepEqual(ids(), ["a:read"]);
  assert.deepEqual(inbox.badge.get(), { unread: 0, unseen: 0 });
  refused.reject(refusal("internal"));
  await first;
  assert.deepEqual(ids(), ["a"]);
  client.count(1, 1, [2, 1]);
  client.last("delete").resolve({ action: "deleted", ids: ["b"], inbox: { unread: 1, unseen: 1, revision: [2, 1] } });
  assert.equal(await second, true);
  assert.deepEqual(ids(), ["a"]);
  assert.deepEqual(inbox.badge.get(), { unread: 1, unseen: 1 });
  assert.equal(inbox.failure.get(), null);
});

test("counters the server told after an action are not counted twice", async () => {
  const { client, inbox } = await shown();
  client.count(2, 2, [1, 1]);
  void inbox.mark("seen", "all");
  assert.deepEqual(inbox.badge.get(), { unread: 2, unseen: 0 });
  client.count(2, 0, [2, 1]);
  assert.deepEqual(inbox.badge.get(), { unread: 2, unseen: 0 });
  void inbox.mark("read", ["b"]);
  assert.deepEqual(inbox.badge.get(), { unread: 1, unseen: 0 });
  client.count(1, 0, [3, 1]);
  assert.deepEqual(inbox.badge.get(), { unread: 1, unseen: 0 });
});

test("an action on all does not reach what came after it", async () => {
  const { client, inbox, ids } = await shown();
  const done = inbox.mark("read", "all");
  client.notify("c", [3, 1]);
  assert.deepEqual(ids(), ["c", "b:read", "a:read"]);
  client.last("read").resolve({ action: "read", ids: null, inbox: { unread: 1, unseen: 1, revision: [2, 1] } });
  await done;
  assert.deepEqual(ids(), ["c", "b:read", "a:read"]);
});

test("ids the inbox does not have disappear, many go in parts, none are not asked for", async () => {
  const { client, inbox, ids } = await shown();
  const done = inbox.mark("read", ["a", "b"]);
  client.last("read").resolve({ action: "read", ids: ["a"], unknown: ["b"], inbox: { revision: [2, 1] } });
  await done;
  assert.deepEqual(ids(), ["a:read"]);
  client.asked = [];
  void inbox.mark("archived", Array.from({ length: 450 }, (_, n) => `n${n}`));
  assert.deepEqual(client.asked.map(({ args }) => args[0].length), [200, 200, 50]);
  client.asked = [];
  assert.equal(await inbox.mark("read", []), true);
  assert.deepEqual(client.asked, []);
});

test("the next page follows the last, with what changed while it was on its way", async () => {
  const { client, list, ids } = await shown(page(["d", "c"], { next: "2" }), { limit: 2 });
  assert.equal(list.store.get().hasMore, true);
  void list.loadMore();
  void list.loadMore();
  assert.equal(list.store.get().loadingMore, true);
  assert.equal(client.asked.filter(({ name }) => name === "list").length, 2);
  assert.equal(client.last("list").args[0].before, "2");
  client.changed("deleted", ["b"], [3, 1]);
  client.notify("e", [4, 1]);
  client.last("list").resolve(page(["c", "b", "a"], { revision: [2, 1] }));
  await turn();
  assert.deepEqual(ids(), ["e", "d", "c", "a"]);
  assert.deepEqual([list.store.get().hasMore, list.store.get().loadingMore], [false, false]);
});

test("a page that failed can be asked for again, a list that failed is loaded with the next connection", async () => {
  const { client, list, ids } = await shown(page(["b"], { next: "1" }), { limit: 1 });
  void list.loadMore();
  client.last("list").reject(refusal("timeout"));
  await turn();
  assert.deepEqual([list.store.get().status, list.store.get().error.code], ["ready", "timeout"]);
  void list.loadMore();
  client.last("list").resolve(page(["a"]));
  await turn();
  assert.deepEqual(ids(), ["b", "a"]);
  assert.equal(list.store.get().error, null);

  const other = new Client();
  const failing = new Inbox(other).list();
  failing.store.subscribe(() => {});
  other.be("live");
  other.last("list").reject(refusal("disconnected"));
  await turn();
  assert.equal(failing.store.get().status, "error");
  other.be("off");
  other.be("live");
  other.last("list").resolve(page(["a"]));
  await turn();
  assert.equal(failing.store.get().status, "ready");
});

test("with filters an empty page is not the end", async () => {
  const { client, list, ids } = await shown(page([], { next: "9" }), { kinds: ["alert"] });
  client.last("list").resolve(page(["a"], { next: "" }));
  await turn();
  assert.deepEqual(ids(), ["a"]);
  assert.equal(list.store.get().hasMore, false);
});

test("after a gap the list is loaded again, as long as it was", async () => {
  const { client, list, ids } = await shown(page(["c", "b", "a"]), { limit: 2 });
  client.emit("gap", { channel: "topic:x", reason: "trimmed" });
  assert.equal(list.store.get().stale, false);
  client.emit("gap", { channel: "user:alice", reason: "trimmed" });
  client.emit("gap", { channel: "all", reason: "trimmed" });
  assert.equal(list.store.get().stale, true);
  await new Promise((done) => setTimeout(done, 5));
  assert.equal(client.asked.filter(({ name }) => name === "list").length, 2);
  assert.equal(client.last("list").args[0].limit, 3);
  client.notify("e", [6, 1]); // after the page was written
  client.notify("d", [5, 1]); // before
  client.last("list").resolve(page(["d", "c"], { revision: [5, 1] }));
  await turn();
  assert.deepEqual(ids(), ["e", "d", "c"]);
  assert.equal(list.store.get().stale, false);
});

test("what comes too late, of another attempt or another user, changes nothing", async () => {
  const { client, list, ids } = await shown(page(["b"], { next: "1" }), { limit: 1 });
  void list.loadMore();
  const late = client.last("list");
  void list.reload();
  client.last("list").resolve(page(["c"]));
  late.resolve(page(["a"]));
  await turn();
  assert.deepEqual(ids(), ["c"]);
  client.user = "bob";
  client.be("live");
  assert.deepEqual(ids(), []);
  client.last("list").resolve(page(["z"]));
  await turn();
  assert.deepEqual(ids(), ["z"]);
});

test("a list stays within its bound, and knows what comes after it", async () => {
  const { client, list } = await shown(page(["b", "a"], { next: "a" }), { limit: 2, max: 4 });
  void list.loadMore();
  client.last("list").resolve(page(["-1", "-2"], { next: "-2" }));
  await turn();
  assert.equal(list.store.get().hasMore, false, "full");
  client.notify("c", [2, 1]);
  assert.deepEqual(list.store.get().notifications.map(({ id }) => id), ["c", "b", "a"]);
  void list.loadMore();
  assert.equal(client.last("list").args[0].before, "a");
  client.last("list").resolve(page([]));
  await turn();
  for (let n = 0; n < 10; n += 1) client.notify(`n${n}`, [10 + n, 1]);
  assert.ok(list.entries.length <= 4, String(list.entries.length));
});

test("events that would bring back what the list does not have load it again", async () => {
  const { client, list } = await shown(page(["a"]), { states: ["unseen", "seen"] });
  client.changed("read", ["a"], [2, 1]);
  assert.equal(list.store.get().notifications.length, 0);
  assert.equal(list.store.get().stale, false);
  client.changed("unread", ["a"], [3, 1]);
  assert.equal(list.store.get().stale, true);
});

test("timers end with the last who looks", async () => {
  const { client, end } = await shown();
  client.emit("gap", { channel: "all" });
  await end();
  await new Promise((done) => setTimeout(done, 5));
  assert.deepEqual(client.names(), ["list"]);
  assert.equal(client.listening, 0);
});
