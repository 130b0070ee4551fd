// The small pure parts.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { backoff, served } from "../../../clients/core/src/backoff.js";
import { take } from "../../../clients/core/src/badge.js";
import { CLOSE, SIGNALS, action } from "../../../clients/core/src/codes.js";
import { Cursor } from "../../../clients/core/src/cursor.js";
import { Parity } from "../../../clients/core/src/parity.js";
import { Seen } from "../../../clients/core/src/seen.js";
import { cursorKey, gentle } from "../../../clients/core/src/storage.js";
import { Token } from "../../../clients/core/src/token.js";
import { random } from "./support/machine.js";

const read = (path) => readFileSync(new URL("../../../" + path, import.meta.url), "utf8");

test("close codes are the server's", () => {
  const source = read("server/dualcast/model/codes.py");
  const table = source.slice(source.indexOf("class Close"), source.indexOf("@property"));
  const theirs = Object.fromEntries([...table.matchAll(/^ {4}([A-Z_]+) = (\d{4})$/gm)].map(([, name, code]) => [name, Number(code)]));
  assert.ok(Object.keys(theirs).length >= 15);
  assert.deepEqual({ ...CLOSE }, theirs);
  const rows = [...read("docs/protocol.md").matchAll(/^ {2}\| (4\d{3}) \|/gm)].map(([, code]) => Number(code));
  assert.deepEqual(Object.values(CLOSE).sort(), rows.sort());
});

test("what follows a close code", () => {
  const found = [1000, 1006, 3999, 4000, 4010, 4099, 4100, 4199, 4200, 4299, 4300, 4999].map(action);
  const expected = ["later", "later", "later", "stop", "stop", "stop", "later", "later", "now", "now", "later", "later"];
  assert.deepEqual(found, expected);
});

test("signals are those a stream has", () => {
  const source = read("server/dualcast/dialects/native_types.py");
  for (const name of SIGNALS) assert.match(source, new RegExp(`tag="${name}"`));
  const reserved = read("server/dualcast/model/codes.py").split("RESERVED_TYPES")[1];
  for (const name of SIGNALS) assert.ok(reserved.includes(`"${name}"`), `a publisher may use ${name}`);
});

test("backoff: full jitter, from 1 s to 30 s, never a spin", () => {
  const chance = random(7);
  for (let attempt = 0; attempt < 2_000; attempt += 1) {
    const ms = backoff(attempt % 40, chance());
    assert.ok(ms >= 50 && ms <= Math.min(30_000, 1_000 * 2 ** (attempt % 40)));
  }
  assert.equal(backoff(0, 0), 50);
  assert.equal(backoff(1_000, 1), 30_000);
  assert.deepEqual([served(undefined), served(null), served(-1), served(NaN), served(0), served(9e9)], [undefined, undefined, undefined, undefined, 0, 3_600_000]);
});

test("seen: bounded, the oldest goes first", () => {
  const seen = new Seen(3);
  assert.deepEqual(["a", "b", "a", "c", "d", "a", "b"].map((id) => seen.add(id)), [true, true, false, true, true, true, true]);
  assert.equal(seen.size, 3);
  for (let i = 0; i < 10_000; i += 1) seen.add(`${i}`);
  assert.equal(seen.size, 3);
});

test("cursor: the newest, and never back to one that was passed", () => {
  const cursor = new Cursor();
  for (const one of ["e-1", "e-2", "e-3"]) assert.ok(cursor.take(one));
  assert.equal(cursor.take("e-2"), false); // the slower connection brings it
  assert.equal(cursor.newest, "e-3");
  for (const one of [undefined, null, "", 7]) assert.equal(cursor.take(one), false);
  assert.ok(cursor.take("f-1")); // another epoch: cursors are opaque
  assert.equal(cursor.newest, "f-1");
  assert.equal(new Cursor("x").take("x"), false);
});

test("badge: PROTO-42 in any order, however often", () => {
  const full = (unread, user, tenant) => ({ unread, unseen: unread, revision: [user, tenant] });
  const run = (...news) => {
    let badge = null;
    let asked = 0;
    for (const one of news) {
      const [next, ask] = take(badge, one);
      badge = next;
      asked += Number(ask);
    }
    return [badge && badge.unread, asked];
  };
  assert.deepEqual(run({ tenant_revision: 4 }), [null, 0]); // nothing is known yet
  assert.deepEqual(run(full(3, 1, 1), full(2, 2, 1), full(3, 1, 1)), [2, 0]); // older: left aside
  assert.deepEqual(run(full(3, 1, 1), full(9, 1, 1)), [3, 0]); // the same
  assert.deepEqual(run(full(3, 1, 2), full(5, 2, 1)), [3, 1]); // crossed: ask
  assert.deepEqual(run(full(3, 1, 4), { tenant_revision: 4 }, { tenant_revision: 3 }), [3, 0]);
  assert.deepEqual(run(full(3, 1, 4), { tenant_revision: 5 }, { tenant_revision: 6 }), [5, 0]);
  assert.deepEqual(run(full(3, 1, 4), { tenant_revision: 6 }), [3, 1]);
  assert.deepEqual(run(full(3, 1, 4), { action: "withdrawn", ids: ["w"], tenant_revision: 5 }), [3, 1]);
  assert.deepEqual(run(full(3, 1, 4), undefined, null), [3, 0]);
});

test("parity: a stretch both had time for, in each side's order, then it is forgotten", () => {
  const parity = new Parity();
  const at = Date.parse("2026-01-31T12:00:00.000Z");
  const note = (link, id, ms) => parity.note(link, { id, time: "2026-01-31T12:00:00.000Z" }, at + ms);
  note("sse", "a", 10);
  note("ws", "b", 20);
  note("ws", "a", 30);
  note("sse", "late", 900);
  assert.deepEqual(parity.report(at + 500), {
    sse: { ids: ["a"], latency_ms: [10] },
    websocket: { ids: ["b", "a"], latency_ms: [20, 30] },
  });
  assert.equal(parity.report(at + 500), null);
  for (let i = 0; i < 5_000; i += 1) note("sse", `${i}`, 950);
  assert.ok(parity.report(at + 10_000).sse.ids.length <= 2_000);
});

test("storage that throws, or holds nonsense, is no storage", () => {
  const broken = gentle({ getItem() { throw new Error("denied"); }, setItem() { throw new Error("full"); }, removeItem() {} });
  broken.set("a", 1);
  assert.equal(broken.get("a"), null);
  assert.equal(gentle({ getItem: () => "{", setItem() {}, removeItem() {} }).get("a"), null);
  assert.equal(gentle(null).get("a"), null);
  const key = (...channels) => cursorKey("http://h", "t", "u", channels);
  assert.equal(key("a", "b"), key("b", "a"));
  assert.notEqual(key("a,b"), key("a", "b"));
  assert.notEqual(cursorKey("http://h", "t", "u", []), cursorKey("http://h", "t", "v", []));
});

test("token: asked once by all who wait, again when it has expired, and claims are read as UTF-8", async () => {
  const make = (claims) => `x.${Buffer.from(JSON.stringify(claims)).toString("base64url")}.y`;
  const made = [];
  const token = new Token(async (why) => made.push(why) && make({ sub: "üser", exp: Date.now() / 1_000 + (made.length === 1 ? 0 : 60) }));
  await Promise.all([token.get(), token.get(), token.get()]);
  assert.equal(made.length, 1);
  await token.get();
  await token.get();
  assert.deepEqual(made, [{ fresh: false }, { fresh: true }]);
  assert.equal(token.claims().sub, "üser");
  assert.equal(await new Token().get(), "");
  const failing = new Token(async () => { throw new Error("away"); });
  await assert.rejects(failing.get());
  await assert.rejects(failing.get(), /away/);
});

test("over REST, too, a delete names what went and what nobody knows", async () => {
  const { ROUTES } = await import("../../../clients/core/src/routes.js");
  const asked = [];
  const call = async (method, path) => {
    asked.push(`${method} ${path}`);
    if (path.endsWith("gone")) throw Object.assign(new Error(), { code: "unknown-notification" });
    if (path.endsWith("away")) throw Object.assign(new Error(), { code: "bus-unavailable" });
    return { unread: 1, unseen: 0, revision: [4, 4], count: 7 };
  };
  const inbox = { unread: 1, unseen: 0, revision: [4, 4] };
  const remove = (fields) => ROUTES.delete({ call }, "a/b", fields);
  assert.deepEqual(await remove({ ids: ["n1", "gone"] }), { action: "deleted", ids: ["n1"], count: 1, unknown: ["gone"], inbox });
  assert.deepEqual(await remove({ all: true }), { action: "deleted", ids: null, count: 7, unknown: [], inbox });
  assert.deepEqual(await remove({ ids: ["gone"] }), { action: "deleted", ids: [], count: 0, unknown: ["gone"], inbox: undefined });
  await assert.rejects(remove({ ids: ["away"] }), { code: "bus-unavailable" });
  assert.equal(asked[0], "DELETE /v1/users/a%2Fb/notifications/n1");
});
