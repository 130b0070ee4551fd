// Streams read by libraries that are not ours: what was sent arrives once and in order, by their own reconnects.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { Server, token, until } from "../core/support/server.js";
import { Cable, header } from "./support/cable.js";
import { LIBRARIES, load } from "./support/libraries.js";

const USER = "alice";
const PATHS = { native: "/v1/stream", legacy: "/api/notifications/stream" };
const WAYS = ["header", "query"];

/** @type {Server} */
let server;
/** @type {Cable} */
let cable;
const open = new Set();

before(async () => {
  server = await Server.start({ "delivery.sse_heartbeat_s": 5, "legacy.ws_heartbeat_s": 1 });
  cable = await Cable.to(server.port);
});
after(async () => {
  for (const close of open) close();
  await cable?.close();
  await server?.close();
});

/** Opens a stream; what it got. `more` goes into the query. */
function listen(library, path, way, mark, more = {}, bearer = token(USER)) {
  const query = new URLSearchParams({ instance: mark, ...more, ...(way === "query" ? { token: bearer } : {}) });
  const found = { got: [], greeted: 0, beats: 0, comments: 0, ended: null, close: () => {} };
  found.close = LIBRARIES[library](`http://${cable.host}${path}?${query}`, {
    bearer: way === "header" ? bearer : "",
    take(type, text, id) {
      if (type === "notification") {
        const data = JSON.parse(text);
        found.got.push({ id, title: data.title ?? data.data.title });
      } else if (type === "welcome" || type === "connected") found.greeted += 1;
      else if (type === "heartbeat") found.beats += 1;
      else if (type === "message") assert.fail(`an event nobody named: ${text}`);
    },
    comment: () => (found.comments += 1),
    ended: (status) => (found.ended = status),
  });
  open.add(found.close);
  return found;
}

const titles = (from, count) => Array.from({ length: count }, (_, number) => `n${from + number}`);

test("every library on both streams, through a cut and a restart", async (t) => {
  const all = Object.keys(LIBRARIES).flatMap((library) =>
    Object.entries(PATHS).flatMap(([kind, path]) =>
      WAYS.map((way) => {
        const name = `${library}, ${kind}, token by ${way}`;
        const mark = `page-${name.replaceAll(/\W/g, "")}`;
        return { name, kind, mark, found: listen(library, path, way, mark) };
      }),
    ),
  );
  const reached = (count) => until(() => all.every(({ found }) => found.got.length >= count), `all got ${count}`);
  await until(() => all.every(({ found }) => found.greeted === 1), "all are greeted");

  const sent = titles(0, 60);
  await server.notifyAll(USER, sent.slice(0, 20));
  await reached(20);
  await until(() => all.every(({ mark, kind, found }) => (kind === "native" ? cable.beats(mark) : found.beats)), "all have a heartbeat");
  cable.comment();
  const telling = all.filter(({ name }) => !name.startsWith("eventsource,")); // that one keeps it to itself
  await until(() => telling.every(({ found }) => found.comments === 1), "a comment line came by");

  cable.cut();
  await server.notifyAll(USER, sent.slice(20, 40));
  await reached(40);
  await until(() => all.every(({ found }) => found.greeted === 2), "all came back");

  await server.down();
  await server.up();
  await server.notifyAll(USER, sent.slice(40, 60));
  await reached(60);

  for (const { name, mark, found } of all) {
    await t.test(name, () => {
      assert.deepEqual(found.got.map(({ title }) => title), sent);
      const ids = found.got.map(({ id }) => id);
      assert.equal(new Set(ids).size, sent.length, "an id each");
      const [first, ...again] = cable.asked(mark);
      assert.equal(header(first, "last-event-id"), "");
      assert.ok(again.length >= 2);
      for (const head of again) assert.match(header(head, "last-event-id"), /./, "it came back without its position");
      assert.equal(header(again[0], "last-event-id"), ids[19]);
      assert.equal(found.ended, null);
      found.close();
    });
  }
});

/** Waits until `library` has given up; how often it asked. */
async function refused(library, path, mark, more, bearer) {
  const found = listen(library, path, "header", mark, more, bearer);
  await until(() => found.ended !== null, `${library} gives up`);
  assert.deepEqual([found.got, found.greeted], [[], 0]);
  found.close();
  return [found.ended, cable.asked(mark).length];
}

for (const library of ["eventsource", "fetch-event-source"]) {
  test(`${library}: a refusal is final`, async () => {
    for (const [kind, path] of Object.entries(PATHS)) {
      assert.deepEqual(await refused(library, path, `${library}401${kind}`, {}, token(USER, { lifeS: -60 })), [401, 1]);
    }
    assert.deepEqual(await refused(library, PATHS.native, `${library}403`, { channel: "topic:closed" }), [403, 1]);
  });
}

test("eventsource-client: comes again after a refusal, as it says, until it is closed", async () => {
  const { createEventSource } = await load("eventsource-client");
  for (const [kind, path] of Object.entries(PATHS)) {
    const delays = [];
    const statuses = [];
    const events = [];
    const source = createEventSource({
      url: `http://${cable.host}${path}?token=bad&instance=again${kind}`,
      fetch: async (...asked) => {
        const answer = await fetch(...asked);
        statuses.push(answer.status);
        return answer;
      },
      onMessage: (event) => events.push(event),
      onScheduleReconnect: ({ delay }) => {
        delays.push(delay);
        source.close();
      },
    });
    await until(() => delays.length, "it wants to come again");
    assert.deepEqual([statuses, delays, events, source.readyState], [[401], [2_000], [], "closed"]);
  }
});

test("a tenant that has left SSE: 204 is the last word for all of them", async () => {
  await server.stage("websocket", { deprecated_at: 1_000, sunset_at: 2_000 });
  for (const library of Object.keys(LIBRARIES)) {
    assert.deepEqual(await refused(library, PATHS.native, `${library}204`), [204, 1], library);
  }
});
