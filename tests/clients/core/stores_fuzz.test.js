// The list of an inbox against a server that is played: pages, replays, marks and replies in any order.

import assert from "node:assert/strict";
import { test } from "node:test";

import { Inbox } from "../../../clients/core/src/stores/inbox.js";
import { Client, USER, item, refusal, turn } from "./support/quiet_client.js";

/** Numbers that look random and are the same every time. */
function dice(seed) {
  let state = seed;
  return (most) => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    return Math.floor((state / 2 ** 32) * most);
  };
}
const RANK = ["unseen", "seen", "read", "archived"];
const COMMANDS = { read: "read", archived: "archive", deleted: "delete", unread: "unread" };
/** `spread` 0: lists that something is missing of are read again with the next timer. */
const SPREAD = 0;

test("whatever the order of pages, replays, marks and replies: in the end the list is the server's", async (t) => {
  t.mock.timers.enable({ apis: ["setTimeout"] });
  for (let seed = 1; seed <= 400; seed += 1) {
    const roll = dice(seed);
    const client = new Client();
    const inbox = new Inbox(client, SPREAD);
    const store = [];
    const events = [];
    let revision = 10;
    let made = 0;
    const unread = () => store.filter(({ state }) => state === "unseen" || state === "seen").length;
    const unseen = () => store.filter(({ state }) => state === "unseen").length;
    const counters = () => ({ unread: unread(), unseen: unseen(), revision: [revision, 1] });
    const change = (action, ids) => {
      revision += 1;
      for (const one of [...store]) {
        if (ids && !ids.includes(one.id)) continue;
        if (action === "deleted") store.splice(store.indexOf(one), 1);
        else if (action === "unread") one.state = one.state === "read" ? "seen" : one.state;
        else one.state = RANK[Math.max(RANK.indexOf(one.state), RANK.indexOf(action))];
      }
      return { action, ids, ...counters() };
    };
    const some = () => (roll(4) ? store.filter(() => !roll(3)).map(({ id }) => id) : null);
    const act = () => {
      if (roll(2)) {
        revision += 1;
        store.unshift(item(`n${(made += 1)}`, "unseen"));
        events.push(["notification", { ...store[0] }, { inbox: counters() }]);
      } else events.push(["inbox", change(["seen", "read", "unread", "archived", "deleted"][roll(5)], some())]);
    };
    const snapshot = () => ({
      notifications: store.filter(({ state }) => state !== "archived").map((one) => ({ ...one })),
      next: "",
      inbox: counters(),
    });
    for (let number = 0; number < 6; number += 1) act();
    let at = roll(events.length + 1); // a stored position: what follows is caught up on
    const take = () => {
      const [event, data, more] = events[at++];
      const { unread, unseen, revision } = more?.inbox ?? data;
      if (!(client.badge?.revision[0] > revision[0])) client.badge = { unread, unseen, revision };
      client.emit("badge", client.badge);
      client.publish(`user:${USER}`, event, data, more);
    };
    const list = inbox.list({ max: 100, limit: 100 });
    const offs = [list.store.subscribe(() => {}), inbox.badge.subscribe(() => {})];
    client.be("live");
    /** A page the server has written, or is about to, for the newest question. */
    let page = null;
    let asked = null;
    let answered = null;
    const waiting = () => client.last("list") !== answered;
    const answer = async () => {
      answered = client.last("list");
      answered.resolve(page ?? snapshot());
      page = null;
      await turn();
    };
    const settle = async (goes) => {
      const { action, ids, question } = asked;
      asked = null;
      if (!goes) question.reject(refusal("internal"));
      else {
        const { revision, ...counts } = change(action, ids);
        // One socket: what was published before the command comes before its reply.
        while (at < events.length) take();
        client.badge = { ...counts, revision };
        question.resolve({ action, ids, inbox: { ...counters() } });
      }
      await turn();
    };
    for (let step = 0; step < 40; step += 1) {
      const what = roll(5);
      if (what === 0) act();
      else if (what === 1 && at < events.length) take();
      else if (what === 2 && !waiting()) void list.reload();
      else if (what === 2 && !page && roll(2)) page = snapshot();
      else if (what === 3 && waiting()) await answer();
      else if (what === 4 && !asked) {
        const action = ["read", "archived", "deleted", "unread"][roll(4)];
        const ids = some();
        if (ids?.length === 0) continue;
        void inbox.mark(action, ids ?? "all");
        asked = { action, ids, question: client.last(COMMANDS[action]) };
      } else if (what === 4) await settle(roll(2));
    }
    if (asked) await settle(false);
    while (at < events.length) take();
    for (let tries = 0; tries < 3; tries += 1) {
      t.mock.timers.tick(1);
      if (waiting()) await answer();
    }
    const wanted = store.filter(({ state }) => state !== "archived").map(({ id, state }) => `${id}:${state}`);
    const shown = list.store.get().notifications.map(({ id, state }) => `${id}:${state}`);
    assert.deepEqual(shown, wanted, `seed ${seed}`);
    assert.deepEqual([list.store.get().stale, list.store.get().loading, inbox.pending.length], [false, false, 0], `seed ${seed}`);
    assert.deepEqual(inbox.badge.get(), { unread: unread(), unseen: unseen() }, `seed ${seed}`);
    for (const off of offs) off();
    await turn();
    assert.equal(client.listening, 0);
  }
});
