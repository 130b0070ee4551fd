import assert from "node:assert/strict";
import { test } from "node:test";
import { Machine } from "./support/machine.js";

const wait = (m, link) => m.timers.get(link) - m.now;

test("WebSocket first: connect opens it and nothing else, and a pong settles it", () => {
  const m = new Machine();
  m.tell({ type: "connect" });
  m.ring();
  assert.deepEqual(m.of("open").map(({ link }) => link), ["ws"]);
  m.welcome("ws");
  assert.equal(m.up, "ws");
  assert.deepEqual(m.last.map(({ type }) => type), ["ping", "timer"]);
  m.ring("ws", 3);
  assert.equal(m.state.settled, true);
  assert.equal(m.state.ws.state, "live");
});

test("connecting twice opens once", () => {
  const m = new Machine();
  m.tell({ type: "connect" });
  m.tell({ type: "connect" });
  m.ring();
  m.tell({ type: "connect" });
  assert.equal(m.of("open").length, 1);
});

test("PROTO-31: a refusal that names channels is no end, but for an EventSource; one that is repeated is not asked in a loop", () => {
  for (const link of ["ws", "sse"]) {
    const m = new Machine(link === "sse" ? { has: { ws: false, sse: true } } : {});
    m.tell({ type: "connect" });
    const waits = [0, 1, 2, 3].map(() => {
      m.ring(link);
      m.frame(link, { type: "bye", code: 4003, reason: "forbidden-channel", channels: ["room:b"] });
      assert.equal(m.state.stopped, null);
      assert.equal(m.state.demoted, null);
      return wait(m, link);
    });
    assert.ok(waits[0] === 0 && waits.slice(1).every((ms) => ms > 0), String(waits));
  }
  const strict = new Machine({ strict: true });
  strict.tell({ type: "connect" });
  strict.ring("ws");
  strict.frame("ws", { type: "bye", code: 4003, reason: "forbidden-channel", channels: ["room:b"] });
  strict.ring("sse");
  strict.closed("sse", 4003, "forbidden-channel", { status: 403, refused: true, channels: ["room:b"] });
  assert.deepEqual(strict.state.stopped, { code: 4003, reason: "forbidden-channel" });
});

test("PROTO-30: 4000 to 4099 stop, but 4010 goes to SSE", () => {
  for (const code of [4000, 4001, 4002, 4003, 4004, 4005, 4009]) {
    const m = new Machine().settled();
    m.closed("ws", code, "why");
    assert.deepEqual(m.state.stopped, { code, reason: "why" });
    assert.equal(m.timers.size, 0);
    m.tell({ type: "online" });
    assert.equal(m.timers.size, 0, "only the user or the page helps");
    m.tell({ type: "connect" });
    assert.equal(m.timers.size, 1);
  }
  const m = new Machine();
  m.tell({ type: "connect" });
  m.ring();
  m.closed("ws", 4010, "stage");
  m.ring("sse");
  m.welcome("sse", "sse");
  assert.equal(m.up, "sse");
  assert.equal(m.of("open").at(-1).fallbackReason, "", "the server said so: no failure");
});

test("PROTO-30: 4009 ends when the page is shown again", () => {
  const m = new Machine().settled();
  m.closed("ws", 4009, "replaced");
  m.tell({ type: "visible" });
  assert.equal(m.state.ws.state, "waiting");
});

test("PROTO-30: 4200 to 4299 come back at once, 4201 with a new token", () => {
  for (const code of [4200, 4201, 4202]) {
    const m = new Machine().settled();
    m.closed("ws", code);
    assert.equal(wait(m, "ws"), 0);
    m.ring();
    assert.equal(m.of("open").at(-1).fresh, code === 4201);
  }
});

test("PROTO-30: a server that closes with 42xx again and again is not hammered", () => {
  const m = new Machine().settled();
  const waits = [];
  for (let i = 0; i < 6; i += 1) {
    m.closed("ws", 4200);
    waits.push(wait(m, "ws"));
    m.ring("ws");
    m.opened("ws");
  }
  assert.deepEqual(waits, [0, 1_000, 2_000, 4_000, 8_000, 15_000]);
});

test("PROTO-29: the delay of bye and drain is kept, whatever the page does meanwhile", () => {
  const m = new Machine().settled();
  m.frame("ws", { type: "bye", code: 4100, reason: "drain", retry_ms: 7_300 });
  assert.equal(wait(m, "ws"), 7_300);
  m.tell({ type: "online" });
  m.tell({ type: "visible" });
  assert.equal(wait(m, "ws"), 7_300);
  const stream = new Machine().fallen();
  stream.frame("sse", { type: "drain", retry_ms: 4_100 });
  assert.equal(wait(stream, "sse"), 4_100);
});

test("S3.98 S3.10 a broken network: jitter that grows to 30 s, and `online` cuts a wait of our own short", () => {
  const m = new Machine({ has: { ws: true, sse: false } }, () => 1);
  m.tell({ type: "connect" });
  const waits = [];
  for (let i = 0; i < 8; i += 1) {
    m.ring("ws");
    m.closed("ws");
    waits.push(wait(m, "ws"));
  }
  assert.deepEqual(waits, [1e3, 2e3, 4e3, 8e3, 16e3, 3e4, 3e4, 3e4]);
  m.tell({ type: "online" });
  assert.equal(wait(m, "ws"), 0);
});

test("a socket that opens and says nothing: SSE takes over at once and says why", () => {
  const m = new Machine();
  m.tell({ type: "connect" });
  m.ring();
  m.opened("ws");
  assert.equal(wait(m, "ws"), 6_000);
  m.ring("ws");
  assert.equal(m.state.demoted.reason, "silent");
  m.ring("sse");
  assert.deepEqual(m.of("open").at(-1), { type: "open", link: "sse", gen: 2, fresh: false, fallbackReason: "silent" });
  m.welcome("sse");
  assert.equal(m.of("remember").at(-1).reason, "silent");
});

test("a socket that swallows after the welcome is found out by the first pings", () => {
  const m = new Machine();
  m.tell({ type: "connect" });
  m.ring();
  m.welcome("ws");
  m.ring("ws", 5_000);
  assert.equal(m.state.demoted, null, "it may be slow");
  m.ring("ws", 15_000);
  assert.equal(m.state.demoted.reason, "stale");
});

test("a socket that goes silent later is asked, then left, and reconnects at once", () => {
  const m = new Machine().settled();
  m.ring("ws", 26_000);
  assert.equal(m.state.ws.state, "asked");
  m.ring("ws", 10_000);
  assert.equal(wait(m, "ws"), 0);
  assert.equal(m.state.demoted, null);
});

test("two handshakes that fail: SSE; back up by a probe beside it, and only then the stream goes", () => {
  const m = new Machine();
  m.tell({ type: "connect" });
  m.ring();
  m.closed("ws");
  m.ring("ws");
  m.closed("ws");
  m.ring("sse");
  m.welcome("sse");
  assert.equal(m.up, "sse");
  const probe = wait(m, "ws");
  assert.ok(probe >= 15_000 && probe <= 30_000, String(probe));
  m.ring("ws", 0);
  m.welcome("ws");
  assert.equal(m.up, "ws+sse");
  m.ring("ws", 1);
  assert.equal(m.up, "ws");
  assert.deepEqual(m.of("remember").at(-1), { type: "remember", reason: null, ms: 0 });
});

test("probes that fail come at growing distances", () => {
  const m = new Machine().fallen();
  const waits = [];
  for (let i = 0; i < 8; i += 1) {
    waits.push(wait(m, "ws"));
    while (m.state.ws.state === "waiting") m.ring("ws");
    m.closed("ws");
  }
  assert.deepEqual(waits, [22_500, 45_000, 90_000, 180_000, 360_000, 450_000, 450_000, 450_000]);
  assert.equal(m.up, "sse");
});

test("a stream that reconnects does not put a probe off", () => {
  const m = new Machine().fallen();
  const due = m.timers.get("ws");
  for (let i = 0; i < 3; i += 1) {
    m.frame("sse", { type: "drain", retry_ms: 100 });
    m.ring("sse");
    m.welcome("sse");
  }
  assert.equal(m.timers.get("ws"), due);
});

test("an outage is not taken for a proxy: no fallback_reason, and WebSocket is tried soon again", () => {
  const m = new Machine().settled();
  m.closed("ws");
  for (let i = 0; i < 3; i += 1) {
    m.ring("ws");
    m.closed("ws");
  }
  assert.notEqual(m.state.demoted, null);
  m.ring("sse");
  m.closed("sse"); // it is down as well
  m.ring("sse");
  assert.equal(m.of("open").at(-1).fallbackReason, "");
  m.welcome("sse");
  assert.ok(wait(m, "ws") <= 5_000);
  assert.equal(m.of("remember").length, 0);
});

test("a close by a dualcast server is no failure of WebSocket", () => {
  const m = new Machine();
  m.tell({ type: "connect" });
  for (let i = 0; i < 6; i += 1) {
    m.ring("ws");
    m.closed("ws", 4101, "try-later");
  }
  assert.equal(m.state.demoted, null);
});

test("stage sse → fallback while open: WebSocket beside the stream, then the stream goes", () => {
  const m = new Machine();
  m.tell({ type: "connect" });
  m.ring();
  m.closed("ws", 4010, "stage");
  m.ring("sse");
  m.welcome("sse", "sse");
  m.frame("sse", { type: "stage", stage: "fallback" });
  assert.equal(m.up, "sse");
  assert.equal(wait(m, "ws"), 2_500, "spread over the tenant's clients");
  m.ring("ws", 0);
  m.welcome("ws");
  assert.equal(m.up, "ws+sse");
  m.ring("ws", 1);
  assert.equal(m.up, "ws");
});

test("stage shadow: both; on to fallback: the socket alone; standby keeps the stream", () => {
  for (const standby of [false, true]) {
    const m = new Machine({ standby: false }).settled("shadow");
    m.state = { ...m.state, standby };
    m.ring("sse");
    m.welcome("sse", "shadow");
    assert.equal(m.up, "ws+sse");
    m.frame("sse", { type: "stage", stage: "fallback" });
    assert.equal(m.up, standby ? "ws+sse" : "ws");
  }
});

test("stage back to sse: `migrate` says when, and the socket is kept until the stream is there", () => {
  const m = new Machine().settled();
  m.frame("ws", { type: "stage", stage: "sse" });
  m.frame("ws", { type: "migrate", to: "sse", url: "/v1/stream", cursor: "c", after_ms: 3_700 });
  assert.equal(wait(m, "sse"), 3_700);
  assert.equal(m.up, "ws");
  m.ring("sse");
  m.opened("sse");
  assert.equal(m.up, "ws");
  m.frame("sse", { type: "welcome", stage: "sse", heartbeat_s: 15 });
  assert.equal(m.up, "sse");
});

test("migrate to websocket: after its delay, also where a probe would come later", () => {
  const m = new Machine().fallen();
  m.frame("sse", { type: "migrate", to: "websocket", url: "/v1/socket", cursor: "c", after_ms: 1_200 });
  assert.equal(wait(m, "ws"), 1_200);
});

test("204: the tenant has left SSE; WebSocket only from then on", () => {
  const m = new Machine().fallen();
  m.closed("sse", 1006, "end");
  m.ring("sse");
  m.closed("sse", 1006, "status-204", { status: 204, refused: true });
  assert.equal(m.state.sse.state, "idle");
  m.ring("ws");
  m.closed("ws");
  m.ring("ws");
  m.closed("ws");
  assert.equal(m.state.sse.state, "idle");
  assert.equal(m.state.ws.state, "waiting");
});

test("a server of two minds is not asked in a loop", () => {
  const m = new Machine();
  m.tell({ type: "connect" });
  const start = m.now;
  for (let i = 0; i < 12; i += 1) {
    m.ring();
    if (m.gen("ws")) m.closed("ws", 4010, "stage");
    else m.closed("sse", 1006, "status-204", { status: 204 });
  }
  assert.ok(m.now - start > 60_000);
});

test("a refused stream beside a live socket does not stop it, nor is it asked in a loop", () => {
  const m = new Machine({ standby: true }).settled();
  m.ring("sse");
  m.closed("sse", 4003, "forbidden", { status: 403, refused: true });
  assert.equal(m.up, "ws");
  assert.ok(wait(m, "sse") >= 15_000);
});

test("a token that expires: refreshed on a socket, a new stream on SSE, no loop with one too short", () => {
  const m = new Machine().settled();
  m.frame("ws", { type: "auth_expiring", expires_at: 1 });
  assert.deepEqual(m.last, [{ type: "refresh", link: "ws", gen: 1 }]);
  m.frame("ws", { type: "auth_expiring", expires_at: 1 });
  assert.deepEqual(m.last, []);
  const stream = new Machine().fallen();
  stream.frame("sse", { type: "auth_expiring", expires_at: 1 });
  stream.tell({ type: "refreshed", link: "sse", gen: stream.gen("sse") });
  assert.equal(wait(stream, "sse"), 0);
});

test("another network: a fallback is doubted at once", () => {
  const m = new Machine().fallen();
  m.tell({ type: "online" });
  assert.equal(wait(m, "ws"), 2_500);
});

test("freeze closes everything and stops every timer; resume goes on", () => {
  const m = new Machine().settled("shadow");
  m.ring("sse");
  m.welcome("sse", "shadow");
  m.tell({ type: "freeze" });
  assert.deepEqual([m.open.size, m.timers.size], [0, 0]);
  m.tell({ type: "resume" });
  assert.equal(wait(m, "ws"), 0);
});

test("shown again: a live socket has to prove itself, soon", () => {
  const m = new Machine().settled();
  m.tell({ type: "visible" });
  assert.equal(m.state.ws.state, "asked");
  assert.equal(wait(m, "ws"), 4_000);
});

test("a remembered fallback begins with SSE and probes", () => {
  const m = new Machine({ demoted: { reason: "silent" } });
  m.tell({ type: "connect" });
  m.ring();
  assert.deepEqual(m.of("open").map(({ link }) => link), ["sse"]);
  m.welcome("sse");
  assert.ok(wait(m, "ws") >= 15_000);
});

test("what a connection says after its end is not heard", () => {
  const m = new Machine().settled();
  const gen = m.gen("ws");
  m.closed("ws");
  const before = m.state;
  m.tell({ type: "frame", link: "ws", gen, frame: { type: "bye", code: 4004, reason: "revoked" } });
  m.tell({ type: "closed", link: "ws", gen, code: 4004, reason: "revoked" });
  assert.deepEqual(m.state, before);
});

test("a server that always says retry_ms 0 is not asked in a loop", () => {
  for (const strict of [false, true]) {
    for (const type of ["bye", "drain"]) {
      const m = new Machine({ has: { ws: true, sse: false }, strict });
      m.tell({ type: "connect" });
      const waits = [];
      for (let time = 0; time < 6; time += 1) {
        m.ring("ws");
        m.welcome("ws");
        m.frame("ws", { type, code: 4101, reason: "busy", retry_ms: 0 });
        waits.push(m.timers.get("ws") - m.now);
      }
      assert.equal(waits[0], 0, "once it is as the server says");
      assert.deepEqual(waits.slice(1), [1_000, 2_000, 4_000, 8_000, 15_000], "half of the ceiling: 2 s, 4 s, …");
      m.ring("ws");
      m.welcome("ws");
      m.ring("ws", 10); // it has lasted
      m.frame("ws", { type, code: 4101, reason: "busy", retry_ms: 0 });
      assert.equal(m.timers.get("ws") - m.now, 0);
    }
  }
});

test("a delay the server has spread is kept, again and again", () => {
  const m = new Machine({ has: { ws: true, sse: false } });
  m.tell({ type: "connect" });
  for (let time = 0; time < 6; time += 1) {
    m.ring("ws");
    m.welcome("ws");
    m.frame("ws", { type: "drain", retry_ms: 1_500 });
    assert.equal(m.timers.get("ws") - m.now, 1_500);
  }
});
