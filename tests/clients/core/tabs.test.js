// Tabs of one browser, where what a paused page is told gets lost: locks are refused to it, messages are dropped.

import assert from "node:assert/strict";
import { afterEach, test } from "node:test";
import { tabs } from "../../../clients/core/src/tabs.js";
import { Locks } from "./support/locks.js";
import { until } from "./support/server.js";

const Real = globalThis.BroadcastChannel;
let locks;
/** Which messages get lost: (message) => boolean. */
let loses;
let groups = 0;
const made = [];
const before = Object.getOwnPropertyDescriptor(globalThis, "navigator");

/** A browser with pages that take part in one group. */
function browser() {
  locks = new Locks();
  loses = () => false;
  Object.defineProperty(globalThis, "navigator", { value: { locks }, configurable: true });
  globalThis.BroadcastChannel = class extends Real {
    postMessage(message) {
      if (!loses(message)) super.postMessage(message);
    }
  };
  const group = tabs(`g${(groups += 1)}`);
  return (tab) => {
    const found = { status: "", commands: [], others: [], channels: [] };
    const sharer = {
      lead: (leading) => (found.status = leading ? "leads" : ""),
      frame: () => {},
      status: (status) => (found.status = status),
      present: () => `follows ${tab}`,
      channels: () => found.channels,
      others: (channels) => (found.others = channels),
      command: async (type, fields) => (found.commands.push([type, fields]), { type }),
    };
    found.part = group("http://h", tab, sharer);
    made.push(found.part);
    return found;
  };
}
afterEach(() => {
  for (const part of made.splice(0)) part.stop();
  globalThis.BroadcastChannel = Real;
  if (before) Object.defineProperty(globalThis, "navigator", before);
  else delete globalThis.navigator;
});

test("a lock that is refused is asked for again", async () => {
  const page = browser();
  const one = page("one");
  locks.refusals = 2; // its own, twice
  one.part.start();
  await until(() => one.status === "leads");
  const two = page("two");
  two.part.start();
  await until(() => two.status === "follows one");
  locks.refusals = 1; // the lead
  one.part.stop();
  await until(() => two.status === "leads");
});

test("a page that is shown asks at once for what it was refused", async () => {
  const page = browser();
  globalThis.document = new EventTarget();
  try {
    const one = page("one");
    locks.refusals = 12; // with the delays alone that is a minute
    one.part.start();
    const look = setInterval(() => document.dispatchEvent(new Event("visibilitychange")), 1);
    await until(() => one.status === "leads").finally(() => clearInterval(look));
  } finally {
    delete globalThis.document;
  }
});

test("a hello that is lost is said again, and commands wait for the leader to know the tab; each is carried out once", async () => {
  const page = browser();
  const [one, two] = [page("one"), page("two")];
  one.part.start();
  await until(() => one.status === "leads");
  let lost = 0;
  loses = ({ type }) => type === "hello" && (lost += 1) < 3;
  two.channels = ["topic:two"];
  two.part.start();
  const reply = two.part.ask("read", { ids: ["n1"] });
  assert.deepEqual(await reply, { type: "read" });
  assert.equal(two.status, "follows one");
  assert.deepEqual(one.others, ["topic:two"]);
  assert.equal(lost, 3);
  two.part.hello(); // its channels are others now: nothing is asked once more
  two.part.ask("seen", {});
  await until(() => one.commands.length === 2);
  assert.deepEqual(one.commands, [["read", { ids: ["n1"] }], ["seen", {}]]);
});

test("a new leader whose first word is lost is found by what it says next", async () => {
  const page = browser();
  const [one, two, three] = ["one", "two", "three"].map(page);
  for (const each of [one, two, three]) {
    each.part.start();
    await until(() => each.status !== "");
  }
  loses = ({ type }) => type === "leader";
  one.part.stop();
  await until(() => two.status === "leads");
  two.part.tell("status", "news");
  await until(() => three.status === "follows two");
  assert.deepEqual(await three.part.ask("read", {}), { type: "read" });
});

test("nothing is asked any more after stop", async () => {
  const page = browser();
  const timers = () => process.getActiveResourcesInfo().filter((one) => one === "Timeout").length;
  const [one, two] = [page("one"), page("two")];
  const idle = timers();
  locks.refusals = Infinity;
  one.part.start();
  await new Promise((done) => setTimeout(done, 20));
  assert.ok(timers() > idle, "it waits to ask again");
  one.part.stop();
  assert.equal(timers(), idle);
  locks.refusals = 0;
  loses = () => true;
  one.part.start();
  await until(() => one.status === "leads");
  two.part.start();
  await new Promise((done) => setTimeout(done, 20));
  assert.ok(timers() > idle, "nobody answers its hello");
  two.part.stop();
  one.part.stop();
  assert.equal(timers(), idle);
});

test("a command that is no JSON is refused in a tab as over a socket", async () => {
  const two = browser()("two");
  const cycle = {};
  cycle.self = cycle;
  for (const bad of [cycle, { n: 1n }]) await assert.rejects(two.part.ask("read", bad), { code: "bad-command" });
});
