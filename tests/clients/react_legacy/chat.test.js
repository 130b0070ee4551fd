// What a conversation shows.

import assert from "node:assert/strict";
import { test } from "node:test";
import { adaptMessage, chatReducer, initialChatState } from "../../../clients/react/src/legacy/index.js";
import { Timers } from "../../../clients/core/src/timers.js";
import { ReadMarks } from "../../../clients/react/src/legacy/chat/read_marks.js";
import { MAX_MESSAGES, MAX_READERS, MAX_TYPING, TYPING_MS } from "../../../clients/react/src/legacy/chat/types.js";
import { FakeClock } from "./support/fakes.js";

const frame = (event_type, data, conversation_id = "c") => ({ type: "frame", now: 1_000, message: adaptMessage({ event_type, data, conversation_id }) });
const run = (...actions) => actions.reduce(chatReducer, initialChatState("c"));
const said = (id, more) => frame("new_message", { id, content: "你好", sender_id: "u2", timestamp: "t", ...more });

test("S3.16 messages of this conversation, each once, the newest of too many", () => {
  const state = run(said("m1"), said("m1"), said("m2"), frame("new_message", { id: "m3" }, "other"), frame("new_message", null));
  assert.deepEqual(state.messages.map(({ id }) => id), ["m1", "m2"]);
  assert.deepEqual(state.messages[0], { id: "m1", conversation_id: "c", content: "你好", message_type: "text", sender_id: "u2", timestamp: "t", read_by: [] });
  const many = run(...Array.from({ length: MAX_MESSAGES + 5 }, (_, number) => said(`m${number}`)));
  assert.deepEqual([many.messages.length, many.messages[0].id], [MAX_MESSAGES, "m5"]);
  assert.deepEqual(chatReducer(many, { type: "open", conversationId: "d", session: 0 }), initialChatState("d"));
  assert.deepEqual(chatReducer(many, { type: "open", conversationId: "c", session: 1 }), initialChatState("c", 1), "another user");
  assert.equal(chatReducer(many, { type: "open", conversationId: "c", session: 0 }), many);
});

test("S3.16 one's own message: on its way, sent, or failed and sent again", () => {
  const sending = { type: "sending", now: 0, message: { id: "m1", content: "hi" } };
  const status = (...actions) => run(...actions).messages.map((one) => one.status);
  assert.deepEqual(status(sending), ["sending"]);
  assert.deepEqual(status(sending, { type: "failed", id: "m1" }), ["failed"]);
  assert.deepEqual(status(sending, { type: "failed", id: "m1" }, sending), ["sending"]);
  assert.deepEqual(status(sending, { type: "failed", id: "m1" }, sending, { type: "sent", id: "m1" }, said("m1")), ["sent"]);
});

test("S3.16 what was missed comes into its place, once, with the server's time", () => {
  const time = (second) => `2026-01-31T12:00:0${second}.000Z`;
  const found = [4, 3, 2, 1].map((second) => ({ id: `m${second}`, content: `c${second}`, message_type: "text", sender_id: "u2", time: time(second) }));
  const sending = { type: "sending", now: Date.parse(time(9)), message: { id: "m3", content: "c3" } };
  const state = run(said("m1", { timestamp: time(1) }), sending, { type: "failed", id: "m3" }, said("m5", { timestamp: time(5) }), { type: "history", messages: found });
  assert.deepEqual(state.messages.map(({ id }) => id), ["m1", "m2", "m3", "m4", "m5"]);
  assert.deepEqual([state.messages[2].status, state.messages[1].content], ["sent", "c2"], "it had arrived, though the answer had not");
  const many = Array.from({ length: MAX_MESSAGES + 9 }, (_, number) => ({ id: `n${number}`, time: time(0) }));
  assert.equal(chatReducer(state, { type: "history", messages: many }).messages.length, MAX_MESSAGES);
});

test("S3.16 who types: until it is over, a message comes, or nothing is heard; not more than a few", () => {
  const typing = (user_id, is_typing = true) => frame("typing_update", { user_id, is_typing });
  assert.deepEqual(run(typing("u2"), typing("u3")).typing, { u2: 1_000 + TYPING_MS, u3: 1_000 + TYPING_MS });
  assert.deepEqual(run(typing("u2"), typing("u2", false)).typing, {});
  assert.deepEqual(run(typing("u2"), said("m1")).typing, {});
  const one = run(typing("u2"));
  assert.equal(chatReducer(one, { type: "tick", now: 2_000 }), one);
  assert.deepEqual(chatReducer(one, { type: "tick", now: 1_000 + TYPING_MS }).typing, {});
  const crowd = run(...Array.from({ length: MAX_TYPING + 5 }, (_, number) => typing(`u${number}`)));
  assert.equal(Object.keys(crowd.typing).length, MAX_TYPING);
});

test("S3.16 what was read is told in few calls, and again when one failed", async () => {
  const clock = new FakeClock();
  const calls = [];
  let fails = true;
  const marks = new ReadMarks(async (ids) => {
    calls.push(ids);
    if (fails) throw new Error("429");
  }, new Timers(clock));
  const pass = (ms) => (clock.pass(ms), new Promise((done) => setImmediate(done)));
  marks.add(["m1"]);
  marks.add(["m2", "m1"]);
  await pass(500);
  marks.add(["m3"]);
  fails = false;
  await pass(5_000);
  assert.deepEqual(calls, [["m1", "m2"], ["m1", "m2", "m3"]]);
  marks.add(Array.from({ length: 700 }, (_, number) => `n${number}`));
  for (let time = 0; time < 10; time += 1) await pass(500);
  assert.deepEqual(calls.slice(2).map((ids) => [ids[0], ids.length]), [200, 300, 400, 500, 600].map((number) => [`n${number}`, 100]));
  marks.add(["m4"]);
  marks.stop();
  assert.deepEqual(clock.waits, []);
});

test("S3.16 who has read what", () => {
  const read = (user_id, message_ids) => frame("read_status", { user_id, message_ids });
  const state = run(said("m1"), said("m2"), read("u1", ["m1", "unknown"]), read("u1", ["m1"]), read("u3", ["m1", "m2"]), read("u3", "m1"));
  assert.deepEqual(state.messages.map(({ read_by }) => read_by), [["u1", "u3"], ["u3"]]);
  assert.equal(chatReducer(state, read("u3", ["m1"])), state, "nothing new, nothing rendered");
  const crowd = run(said("m1"), ...Array.from({ length: MAX_READERS + 5 }, (_, number) => read(`u${number}`, ["m1"])));
  assert.equal(crowd.messages[0].read_by.length, MAX_READERS);
  const other = frame("presence_update", { user_id: "u2" });
  assert.equal(chatReducer(state, other), state);
});
