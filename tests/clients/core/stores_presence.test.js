import assert from "node:assert/strict";
import { test } from "node:test";

import { change, state, unknown } from "../../../clients/core/src/stores/presence.js";

const names = ({ view }) => view.members.map(({ user }) => user).join("");
const all = (users, revision, more = {}) => ({
  data: { members: [...users].map((user) => ({ user, devices: ["web"] })), count: users.length, revision, more: false, ...more },
});
const event = (joined, left, count, revision) => ({ joined: [...joined], left: [...left], count, revision });

test("state first, then who comes and goes", () => {
  let known = state(unknown(), all("ab", 5));
  known = change(known, event("c", "", 3, 6));
  known = change(known, event("", "a", 2, 7));
  assert.deepEqual([names(known), known.view.count, known.view.status], ["bc", 2, "ready"]);
  assert.deepEqual(known.view.members[0].devices, ["web"]);
});

test("an event the state knew already changes nothing", () => {
  const known = state(unknown(), all("ab", 5));
  assert.equal(change(known, event("", "a", 1, 5)), known);
  assert.equal(state(known, all("z", 4)), known);
});

test("what came before the state, and is newer, holds", () => {
  let known = change(unknown(), event("c", "a", 2, 8));
  known = change(known, event("x", "", 3, 4));
  known = state(known, all("ab", 6));
  assert.deepEqual([names(known), known.view.count], ["bc", 2]);
});

test("of two events about one user the higher revision is right, in any order", () => {
  const base = state(unknown(), all("a", 1));
  for (const [one, two] of [[2, 3], [3, 2]]) {
    const events = { 2: event("b", "", 2, 2), 3: event("", "b", 1, 3) };
    const known = change(change(base, events[one]), events[two]);
    assert.deepEqual([names(known), known.view.count], ["a", 1]);
  }
});

test("parts of one revision belong together", () => {
  const known = change(change(state(unknown(), all("", 1)), event("a", "", 2, 2)), event("b", "", 2, 2));
  assert.equal(names(known), "ab");
});

test("a state that could not be read keeps who was known; none and too large are told", () => {
  const known = state(unknown(), all("ab", 5));
  assert.deepEqual([names(state(known, { data: null, status: "away" })), state(known, { data: null, status: "away" }).view.status], ["ab", "away"]);
  const large = state(known, { data: null, status: "too-large" });
  assert.deepEqual([names(large), large.view.status], ["", "too-large"]);
});

test("a crowd is bounded: the count is true, the list is not all of it", () => {
  let known = state(unknown(), all("", 0));
  for (let n = 1; n <= 50; n += 1) known = change(known, event([`u${n}`], "", n, n), 10);
  assert.deepEqual([known.view.members.length, known.view.count, known.view.more], [10, 50, true]);
  assert.ok(known.users.size <= 20);
  assert.deepEqual(state(unknown(), all("abc", 1), 2).view, { status: "ready", members: all("ab", 1).data.members, count: 3, more: true });
});
