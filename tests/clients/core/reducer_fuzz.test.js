import assert from "node:assert/strict";
import { test } from "node:test";
import { LINKS, NAMES, isActive } from "../../../clients/core/src/states.js";
import { Machine, random } from "./support/machine.js";

/** One random event, as pages, networks and servers make them; frames may come at any time. */
function anything(m, chance) {
  const pick = (list) => list[Math.floor(chance() * list.length)];
  const link = pick(NAMES);
  const gen = chance() < 0.9 ? (m.gen(link) ?? 0) : Math.floor(chance() * 20);
  const stage = pick(["sse", "shadow", "fallback", "websocket", "fallback"]);
  const kinds = ["page", "page", "tick", "tick", "tick", "tick", "frame", "frame", "closed", "opened", "opening", "welcome", "welcome"];
  const kind = pick(kinds);
  if (kind === "page") {
    const type = pick(["connect", "connect", "disconnect", "online", "offline", "visible", "freeze", "resume", "resume", "channels", "token", "leader"]);
    return m.tell(type === "leader" ? { type, leader: chance() < 0.8 } : { type });
  }
  if (kind === "tick") return m.ring(undefined, chance() < 0.5 ? 5 : undefined);
  m.pass(Math.floor(chance() * 4_000));
  if (kind === "closed") {
    const code = pick([1000, 1001, 1006, 1006, 4000, 4001, 4009, 4010, 4100, 4101, 4103, 4200, 4201, 4202]);
    const more = chance() < 0.1 ? { channels: ["room:b"], status: 403, refused: true } : chance() < 0.2 ? { retryMs: chance() * 9_000 } : chance() < 0.2 ? { status: 204, refused: true } : {};
    return m.tell({ type: "closed", link, gen, code, reason: pick(["", "end", "timeout"]), ...more });
  }
  if (kind === "opened" || kind === "opening") return m.tell({ type: kind, link, gen });
  if (kind === "welcome") return m.tell({ type: "frame", link, gen, frame: { type: "welcome", stage, heartbeat_s: pick([15, 25, 0]) } });
  const frame = pick([
    { type: "stage", stage },
    { type: "migrate", to: pick(["sse", "websocket"]), after_ms: pick([0, 900, undefined]) },
    { type: "bye", code: pick([4000, 4009, 4100, 4200, 4201]), reason: "x", retry_ms: pick([undefined, 3_000]), channels: pick([undefined, undefined, ["room:b"]]) },
    { type: "drain", retry_ms: 2_000 },
    { type: "auth_expiring" },
    { type: "auth_expired", reason: "expired" },
    { type: "pong" },
  ]);
  return m.tell({ type: "frame", link, gen, frame });
}

test("fuzz: whatever happens, no state without exit, no double connect, no timer leak", () => {
  const seen = { ws: new Set(), sse: new Set() };
  for (let seed = 1; seed <= 400; seed += 1) {
    const chance = random(seed);
    const given = {
      has: pick3(chance),
      standby: chance() < 0.2,
      strict: chance() < 0.2,
      demoted: chance() < 0.1 ? { reason: "r" } : null,
    };
    const m = new Machine(given, chance);
    const told = [];
    try {
      for (let step = 0; step < 250; step += 1) {
        told.push(anything(m, chance));
        for (const name of NAMES) seen[name].add(m.state[name].state);
      }
      // The exit: with a network and a server that work it gets there from wherever it is.
      m.tell({ type: "leader", leader: true });
      m.tell({ type: "resume" });
      m.tell({ type: "connect" });
      let steps = 0;
      while (!m.up && isActive(m.state)) {
        assert.ok((steps += 1) < 60, "it never connects");
        m.ring();
        for (const link of NAMES) if (m.gen(link) && m.state[link].state !== "live" && m.state[link].state !== "asked") m.welcome(link, link === "ws" ? "fallback" : "sse");
      }
      m.tell({ type: "disconnect" });
      assert.deepEqual([m.open.size, m.timers.size], [0, 0]);
    } catch (error) {
      error.message += ` (seed ${seed}, after ${told.length} events)`;
      throw error;
    }
  }
  for (const name of NAMES) assert.deepEqual([...seen[name]].sort(), Object.keys(LINKS).filter((s) => name === "ws" || s !== "asked").sort());
});

const pick3 = (chance) => [{ ws: true, sse: true }, { ws: true, sse: true }, { ws: true, sse: false }, { ws: false, sse: true }][Math.floor(chance() * 4)];
