// WHATWG HTML section 9.2.6; the cases are those of the web platform tests under eventsource/format-*.

import assert from "node:assert/strict";
import { test } from "node:test";
import { parser } from "../../../clients/core/src/sse_parser.js";
import { random } from "./support/machine.js";

/** Events, positions and retries of `text`, fed in pieces. */
function parse(text, pieces = [text.length]) {
  const found = [];
  const feed = parser({
    event: ({ type, data, id }) => found.push(id ? [type, data, id] : [type, data]),
    position: (id) => found.push({ position: id }),
    retry: (ms) => found.push({ retry: ms }),
  });
  let at = 0;
  for (const size of pieces) {
    feed(text.slice(at, at + size));
    at += size;
  }
  feed(text.slice(at));
  return found;
}

const CASES = {
  "one event": ["data: a\n\n", [["message", "a"]]],
  "lines are joined": ["data: a\ndata: b\n\n", [["message", "a\nb"]]],
  "a field without a colon is empty": ["data\n\ndata\ndata\n\ndata:test\n\n", [["message", ""], ["message", "\n"], ["message", "test"]]],
  "one space is taken off, no more": ["data:\tx\n\ndata:  x\n\n", [["message", "\tx"], ["message", " x"]]],
  "comments": ["data:1\n:\0\n:a comment\r\ndata:2\n: data:3\n\n", [["message", "1\n2"]]],
  "CR, LF and CRLF end lines": ["data:1\rdata:2\r\ndata:3\n\ndata:4\r\r\ndata:5\r\n\r\n", [["message", "1\n2\n3"], ["message", "4"], ["message", "5"]]],
  "other line separators do not": ["data:a\u2028b\u0085c\vd\fe\n\n", [["message", "a\u2028b\u0085c\vd\fe"]]],
  "names are exact": [" data:1\ndata :2\nDATA:3\ndatax:4\n\ndata:5\n\n", [["message", "5"]]],
  "a type, and it does not last": ["event: a\ndata: 1\n\ndata: 2\n\n", [["a", "1"], ["message", "2"]]],
  "a type without data is forgotten": ["event: a\n\ndata: 2\n\n", [["message", "2"]]],
  "an empty type is message": ["event:\ndata: 1\n\n", [["message", "1"]]],
  "an id lasts": ["id: 1\ndata: a\n\ndata: b\n\n", [["message", "a", "1"], ["message", "b", "1"]]],
  "an empty id resets": ["id: 1\ndata: a\n\nid\ndata: b\n\n", [["message", "a", "1"], ["message", "b"]]],
  "an id with NUL is ignored": ["id: 1\ndata: a\n\nid: 2\0\ndata: b\n\n", [["message", "a", "1"], ["message", "b", "1"]]],
  "an id alone moves the position and fires nothing": ["id: 7\n\n", [{ position: "7" }]],
  "retry takes digits only": ["retry: 10\nretry: 1x\nretry: -1\nretry: 1.5\nretry\nretry: 0\ndata: a\n\n", [{ retry: 10 }, { retry: 0 }, ["message", "a"]]],
  "the end does not dispatch": ["data: a\n\ndata: b", [["message", "a"]]],
  "nor does one newline": ["data: a\n", []],
  "unknown fields": ["foo: 1\nbar\ndata: a\n\n", [["message", "a"]]],
  "NUL in data stays": ["data: \0\n\n", [["message", "\0"]]],
  "colons in the value": ["data: a: b:c\n\n", [["message", "a: b:c"]]],
};

for (const [name, [text, expected]] of Object.entries(CASES)) {
  test(`stream format: ${name}`, () => {
    assert.deepEqual(parse(text), expected);
    assert.deepEqual(parse(text, Array(text.length).fill(1)), expected, "byte by byte");
  });
}

test("stream format: any cutting gives the same", () => {
  const chance = random(3);
  const text = Object.values(CASES).map(([one]) => one + "\n\n").join("");
  const whole = parse(text);
  for (let round = 0; round < 200; round += 1) {
    const pieces = Array.from({ length: 30 }, () => Math.floor(chance() * 12));
    assert.deepEqual(parse(text, pieces), whole);
  }
});

test("stream format: a very long line in small pieces takes linear time", () => {
  const text = `data: ${"x".repeat(1_000_000)}\n\n`;
  const [[, data]] = parse(text, Array(Math.floor(text.length / 100)).fill(100));
  assert.equal(data.length, 1_000_000);
});
