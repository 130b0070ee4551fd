import assert from "node:assert/strict";
import { test } from "node:test";

import { apply, bounded, brings, entriesOf } from "../../../clients/core/src/stores/inbox_state.js";
import { EN, ZH, safeLink } from "../../../clients/core/src/stores/index.js";
import { Store } from "../../../clients/core/src/stores/store.js";
import { item, page } from "./support/quiet_client.js";

test("where a page ends moves up when its last item goes", () => {
  const entries = entriesOf(page(["c", "b", "a"], { next: "after-a" }));
  const left = apply(entries, { action: "deleted", ids: ["a"] });
  assert.deepEqual(left.map(({ item: { id }, next }) => [id, next]), [["c", ""], ["b", "after-a"]]);
  assert.equal(bounded([...left, ...left], 3).length, 2);
  assert.equal(bounded([left[0], left[0]], 1), null);
});

test("a change that is none to a list leaves it the same", () => {
  const entries = entriesOf(page(["a", item("b", "read")]));
  for (const change of [{ action: "read", ids: ["x", "b"] }, { action: "added", ids: ["a"] }, { action: "unread", ids: ["a"] }]) {
    assert.equal(apply(entries, change), entries);
  }
  assert.equal(apply(entries, { action: "archived", ids: null, states: ["read"] }).filter((one, at) => one === entries[at]).length, 1);
});

test("which actions bring items into a list", () => {
  assert.equal(brings("unread", ["unseen", "seen"]), true);
  assert.equal(brings("unread", ["unseen", "seen", "read"]), false);
  assert.equal(brings("archived", ["archived"]), true);
  assert.equal(brings("deleted", ["unseen"]), false);
  assert.equal(brings("read", []), false);
});

test("links that run script are none", () => {
  for (const link of ["/a", "a?b#c", "https://x.example/", "HTTP://x.example", "//x.example/a"]) assert.equal(safeLink(link), link);
  const bad = ["javascript:alert(1)", " JaVaScript:alert(1)", "java\tscript:alert(1)", "\u0001javascript:alert(1)", "data:text/html,x"];
  for (const link of [...bad, "vbscript:x", "blob:https://x/1", "file:///etc", "", "  ", null, undefined, {}, "http://[", "mailto:a@b"]) {
    assert.equal(safeLink(link), null, String(link));
  }
});

test("a store starts at the first listener and stops after the last", () => {
  const told = [];
  const store = new Store(1, () => (told.push("start"), () => told.push("stop")));
  const listener = () => told.push(store.get());
  const offs = [store.subscribe(listener), store.subscribe(listener)];
  store.set(2);
  store.set(2);
  offs[0]();
  offs[0]();
  store.set(3);
  offs[1]();
  store.set(4);
  assert.deepEqual(told, ["start", 2, 2, 3, "stop"]);
});

test("both languages say the same things", () => {
  assert.deepEqual(Object.keys(EN), Object.keys(ZH));
});
