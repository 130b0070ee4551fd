// The pure lists: notifications and presence, in any order of news.

import assert from "node:assert/strict";
import { test } from "node:test";
import { brings, EMPTY, reduceList, viewOf } from "../../../clients/vue/src/stores/notification_list.js";
import { NOBODY, reducePresence } from "../../../clients/vue/src/stores/presence_list.js";

const SHAPE = { limit: 5, states: ["unseen", "seen", "read"], kinds: [] };
const item = (id, state = "unseen", more = {}) => ({ id, type: "note", title: id, created_at: "", state, ...more });
const run = (events, list = EMPTY, shape = SHAPE) => events.reduce((now, event) => reduceList(now, event, shape), list);
const page = (ids, { first = true, next = "", revision = [10, 1], state = "unseen" } = {}) => ({ type: "page", items: ids.map((id) => item(id, state)), next, first, revision });
const came = (id, user, more = {}) => ({ type: "arrived", item: item(id), news: { unread: 1, unseen: 1, revision: [user, 1] }, ...more });
const shown = (list, shape = SHAPE) => viewOf(list, shape).items.map(({ id, state }) => `${id}:${state}`);

test("what comes while a page loads stands before it; what the page has stands once", () => {
  const list = run([{ type: "loading" }, came("n3", 11), came("n2", 10), page(["n2", "n1"], { revision: [10, 1] })]);
  assert.deepEqual(shown(list), ["n3:unseen", "n2:unseen", "n1:unseen"]);
  assert.deepEqual(shown(run([came("n3", 11)], list)), shown(list), "the same once more");
});

test("what a connection catches up on does not come before what is newer", () => {
  const loaded = run([{ type: "loading" }, page(["n9", "n8"], { revision: [20, 1], next: "8" })]);
  const behind = run([came("n2", 12), { type: "marked", mark: { action: "read", ids: null, revision: [13, 1] } }], loaded);
  assert.deepEqual(shown(behind), ["n9:unseen", "n8:unseen"], "an old `read all` does not mean the new ones");
  assert.deepEqual(shown(run([came("n10", 21)], loaded))[0], "n10:unseen");
  const wide = { type: "arrived", item: item("w", "unseen"), news: { tenant_revision: 2 } };
  assert.equal(shown(run([wide], loaded))[0], "w:unseen");
  assert.equal(shown(run([{ ...wide, news: { tenant_revision: 1 } }], loaded)).length, 2);
});

test("marks raise, unread brings back, deleted and archived leave", () => {
  const list = run([page(["c", "b", "a"])]);
  const mark = (action, ids, from = list, more = {}) => run([{ type: "marked", mark: { action, ids, revision: [11, 1], ...more } }], from);
  const read = mark("read", ["b"]);
  assert.deepEqual(shown(read), ["c:unseen", "b:read", "a:unseen"]);
  assert.deepEqual(shown(mark("seen", null, read)), ["c:seen", "b:read", "a:seen"], "seen lowers nothing");
  assert.deepEqual(shown(mark("unread", null, read)), ["c:unseen", "b:seen", "a:unseen"]);
  for (const action of ["deleted", "archived"]) assert.deepEqual(shown(mark(action, ["b", "x"])), ["c:unseen", "a:unseen"]);
  assert.deepEqual(shown(mark("withdrawn", ["a"], list, { revision: undefined, tenant_revision: 2 })), ["c:unseen", "b:unseen"]);
  assert.deepEqual(shown(mark("deleted", null, read, { states: ["read"] })), ["c:unseen", "a:unseen"]);
});

test("a mark that the page was too early for holds after it", () => {
  const mark = { action: "read", ids: ["a"], revision: [11, 1] };
  assert.deepEqual(shown(run([{ type: "loading" }, { type: "marked", mark }, page(["b", "a"])])), ["b:unseen", "a:read"]);
  const older = { action: "unread", ids: ["a"], revision: [9, 1] };
  assert.deepEqual(shown(run([{ type: "loading" }, { type: "marked", mark: older }, page(["a"], { state: "read" })])), ["a:read"]);
});

test("what was asked for shows at once, holds when it is done, and is taken back when it is refused", () => {
  const loaded = run([page(["b", "a"]), { type: "counts", counts: { unread: 7, unseen: 7 } }]);
  const mark = { action: "read", ids: ["a"] };
  const asked = run([{ type: "asked", key: 1, mark }], loaded);
  assert.deepEqual([shown(asked), viewOf(asked, SHAPE).unread, viewOf(asked, SHAPE).unseen], [["b:unseen", "a:read"], 6, 6]);
  const back = run([{ type: "settled", key: 1, mark, done: false }], asked);
  assert.deepEqual([shown(back), viewOf(back, SHAPE).unread], [["b:unseen", "a:unseen"], 7]);
  const done = run([{ type: "settled", key: 1, mark: { ...mark, revision: [11, 1] }, done: true }, { type: "counts", counts: { unread: 6, unseen: 6 } }], asked);
  assert.deepEqual([shown(done), viewOf(done, SHAPE).unread], [["b:unseen", "a:read"], 6]);
});

test("a refusal takes back its own mark and no other", () => {
  const [one, two] = [{ action: "read", ids: ["a"] }, { action: "deleted", ids: ["b"] }];
  const list = run([page(["b", "a"]), { type: "asked", key: 1, mark: one }, { type: "asked", key: 2, mark: two }, came("c", 11)]);
  assert.deepEqual(shown(list), ["c:unseen", "a:read"]);
  assert.deepEqual(shown(run([{ type: "settled", key: 2, mark: two, done: false }], list)), ["c:unseen", "b:unseen", "a:read"]);
});

test("all: also what is not in the list, and not what came after it was asked", () => {
  const loaded = run([page(["a"], { next: "1" }), { type: "counts", counts: { unread: 9, unseen: 4 } }]);
  const mark = { action: "read", ids: null, revision: [10, 1] };
  const asked = run([{ type: "asked", key: 1, mark }], loaded);
  assert.deepEqual([viewOf(asked, SHAPE).unread, viewOf(asked, SHAPE).unseen], [0, 0]);
  const after = run([came("b", 12)], asked);
  assert.deepEqual([shown(after), viewOf(after, SHAPE).unread], [["b:unseen", "a:read"], 1]);
  const done = run([{ type: "settled", key: 1, mark: { ...mark, revision: [11, 1] }, done: true }], after);
  assert.deepEqual(shown(done), ["b:unseen", "a:read"], "the reply is older than b");
});

test("the list is bounded, and a list that let go of something has no next page", () => {
  const full = run([page(["c", "b", "a"], { next: "1" })]);
  assert.equal(viewOf(full, SHAPE).more, true);
  const over = run(["d", "e", "f"].map((id, at) => came(id, 11 + at)), full);
  assert.deepEqual([shown(over).length, viewOf(over, SHAPE).more], [5, false]);
  const gone = run([{ type: "marked", mark: { action: "deleted", ids: ["f"], revision: [20, 1] } }], over);
  assert.deepEqual([shown(gone).length, viewOf(gone, SHAPE).more], [4, false], "a page behind it would leave a hole");
  assert.equal(over.ages.size <= 5, true);
  const later = run([{ type: "loading" }, page(["0", "-1"], { first: false, next: "" })], full);
  assert.deepEqual(shown(later).map((one) => one.split(":")[0]), ["c", "b", "a", "0", "-1"]);
  assert.equal(run(Array.from({ length: 300 }, () => ({ type: "marked", mark: { action: "read", ids: [] } })), run([{ type: "loading" }])).missed.length, 100);
});

test("only kinds and states that were asked for", () => {
  const shape = { ...SHAPE, kinds: ["alert"], states: ["unseen"] };
  const list = run([came("a", 11), came("b", 12, { item: item("b", "unseen", { type: "alert" }) })], EMPTY, shape);
  assert.deepEqual(shown(list, shape), ["b:unseen"]);
  assert.deepEqual(shown(run([{ type: "marked", mark: { action: "seen", ids: ["b"], revision: [13, 1] } }], list, shape), shape), []);
});

test("a load that failed keeps the list; a reset forgets it", () => {
  const error = new Error("away");
  const list = run([page(["a"]), { type: "loading" }, { type: "failed", error }]);
  assert.deepEqual([shown(list), viewOf(list, SHAPE).error, viewOf(list, SHAPE).loading], [["a:unseen"], error, false]);
  assert.deepEqual(shown(run([{ type: "reset" }], list)), []);
});

// ── presence ──

const state = (members, revision, more = {}) => ({ type: "state", data: { members: members.map((user) => ({ user, devices: ["web"] })), count: members.length, revision, more: false, ...more } });
const event = (revision, joined, left, count) => ({ type: "presence", data: { joined, left, count, revision } });
const users = (list) => list.members.map(({ user }) => user);
const seen = (events, limit) => events.reduce((list, one) => reducePresence(list, one, limit), NOBODY);

test("presence: a state, and who came and went since", () => {
  const list = seen([state(["a", "b"], 5), event(6, ["c"], [], 3), event(7, [], ["a"], 2)]);
  assert.deepEqual([users(list), list.count, list.known], [["b", "c"], 2, true]);
  assert.deepEqual(list.members[0].devices, ["web"]);
});

test("presence: events that are in the state already change nothing, later ones that overtook it hold", () => {
  assert.deepEqual(users(seen([state(["a"], 5), event(4, [], ["a"], 0), event(5, ["x"], [], 9)])), ["a"]);
  const late = seen([event(7, ["c"], [], 2), event(8, [], ["a"], 1), state(["a", "b"], 6)]);
  assert.deepEqual([users(late), late.count, late.revision], [["b", "c"], 1, 8]);
  assert.deepEqual(users(reducePresence(late, state(["z"], 3))), ["b", "c"], "an older state");
  assert.deepEqual([...reducePresence(late, state(["q"], 9)).left], [], "what a newer state knows is forgotten");
});

test("presence: of two events about one user the higher is right, whatever their order", () => {
  assert.deepEqual(users(seen([state([], 1), event(4, [], ["a"], 0), event(3, ["a"], [], 1)])), []);
  assert.deepEqual(users(seen([state([], 1), event(4, ["a"], [], 1), event(3, [], ["a"], 0)])), ["a"]);
  assert.equal(seen([state([], 1), event(4, ["a"], [], 1), event(3, [], ["a"], 0)]).count, 1);
});

test("presence: more than fit are counted and not kept; so are those who left", () => {
  const crowd = Array.from({ length: 50 }, (_, at) => `u${at}`);
  const list = seen([state([], 1), event(2, crowd, [], 50), event(3, [], crowd.map((user) => `gone-${user}`), 50)], 10);
  assert.deepEqual([list.members.length, list.count, list.more, list.left.size], [10, 50, true, 10]);
});

test("presence: none is nobody, away leaves what was known", () => {
  const list = seen([state(["a"], 5)]);
  assert.equal(reducePresence(list, { type: "state", data: null, status: "away" }), list);
  const none = reducePresence(list, { type: "state", data: null, status: "none" });
  assert.deepEqual([users(none), none.known], [[], true]);
});

// ── the list against a server that is played ──

/** Numbers that look random and are the same every time. */
function dice(seed) {
  let state = seed;
  return (most) => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    return Math.floor((state / 2 ** 32) * most);
  };
}
const RANK = ["unseen", "seen", "read", "archived"];

test("whatever the order of pages, replays, marks and replies: in the end the list is the server's", () => {
  const shape = { ...SHAPE, limit: 100 };
  for (let seed = 1; seed <= 400; seed += 1) {
    const roll = dice(seed);
    const store = [];
    const events = [];
    let revision = 10;
    let made = 0;
    const change = (action, ids) => {
      revision += 1;
      for (const one of [...store]) {
        if (ids && !ids.includes(one.id)) continue;
        if (action === "deleted") store.splice(store.indexOf(one), 1);
        else if (action === "unread") one.state = one.state === "read" ? "seen" : one.state;
        else one.state = RANK[Math.max(RANK.indexOf(one.state), RANK.indexOf(action))];
      }
      return { action, ids, revision: [revision, 1] };
    };
    const some = () => (roll(4) ? store.filter(() => !roll(3)).map(({ id }) => id) : null);
    const act = () => {
      if (roll(2)) {
        revision += 1;
        store.unshift(item(`n${(made += 1)}`));
        events.push({ type: "arrived", item: { ...store[0] }, news: { revision: [revision, 1] } });
      } else events.push({ type: "marked", mark: change(["seen", "read", "unread", "archived", "deleted"][roll(5)], some()) });
    };
    const snapshot = () => ({ type: "page", first: true, next: "", revision: [revision, 1], items: store.filter(({ state }) => state !== "archived").map((one) => ({ ...one })) });
    for (let number = 0; number < 6; number += 1) act();
    let at = roll(events.length + 1); // a stored position: what follows is caught up on
    let list = EMPTY;
    let page = null;
    let asked = null;
    const take = (event) => (list = reduceList(list, event, shape));
    for (let step = 0; step < 40; step += 1) {
      const what = roll(5);
      if (what === 0) act();
      else if (what === 1 && at < events.length) take(events[at++]);
      else if (what === 2 && !list.loading) [page] = [(take({ type: "loading" }), roll(2) ? snapshot() : null)];
      else if (what === 3 && list.loading) [page] = [(take(page ?? snapshot()), null)];
      else if (what === 4 && !asked) take((asked = { type: "asked", key: 1, mark: { action: "read", ids: some(), revision: [revision, 1] } }));
      else if (what === 4) {
        const mark = roll(2) ? change("read", asked.mark.ids) : null;
        // One socket: what was published before the command comes before its reply.
        if (mark) while (at < events.length) take(events[at++]);
        take({ type: "settled", key: 1, mark: mark ?? asked.mark, done: !!mark });
        asked = null;
      }
    }
    if (asked) take({ type: "settled", key: 1, mark: asked.mark, done: false });
    while (at < events.length) take(events[at++]);
    if (list.loading || !list.loaded) take((take({ type: "loading" }), snapshot()));
    const wanted = store.filter(({ state }) => state !== "archived").map(({ id, state }) => `${id}:${state}`);
    assert.deepEqual(shown(list, shape), wanted, `seed ${seed}`);
  }
});

test("which action may bring something into a list that it did not have", () => {
  const all = ["seen", "read", "unread", "archived", "deleted", "withdrawn"];
  const bringing = (states) => all.filter((action) => brings(action, states));
  assert.deepEqual(bringing(SHAPE.states), []);
  assert.deepEqual(bringing(["unseen", "seen"]), ["unread"]);
  assert.deepEqual(bringing(["read"]), ["read"]);
  assert.deepEqual(bringing(["archived"]), ["archived"]);
});
