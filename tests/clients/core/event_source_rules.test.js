// The rules of WHATWG HTML section 9.2, case by case as the web platform tests have them (eventsource/*); their names
// stand in brackets.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { DualcastEventSource } from "../../../clients/core/src/event_source.js";
import { StreamSite, TYPE, sends } from "./support/stream_site.js";
import { until } from "./support/server.js";

let site;
before(async () => {
  site = await StreamSite.start();
});
after(() => site.close());

/** A stream's text → the data of its messages. The last block is there to know that all was read. */
const FORMAT = {
  "format-bom": ["\uFEFFdata:1\n\n\uFEFFdata:2\n\ndata:3\n\n", ["1", "3"]],
  "format-bom-2": ["\uFEFF\uFEFFdata:1\n\ndata:2\n\ndata:3\n\n", ["2", "3"]],
  "format-comments": [`data:1\r:\0\n:\r\ndata:2\n:${"x".repeat(2048)}\rdata:3\n:data:fail\r:${"x".repeat(2048)}\ndata:4\n\n`, ["1\n2\n3\n4"]],
  "format-field-data": ["data:\n\ndata\ndata\n\ndata:test\n\n", ["", "\n", "test"]],
  "format-field-event-empty": ["event: \ndata:data\n\n", ["data"]],
  "format-field-parsing": ["data:\0\ndata:  2\rData:1\ndata\0:2\ndata:1\r\0data:4\nda-ta:3\rdata_5\ndata:3\rdata:\r\n data:32\ndata:4\n\n", ["\0\n 2\n1\n3\n\n4"]],
  "format-field-retry-empty": ["retry\ndata:test\n\n", ["test"]],
  "format-field-unknown": ["data:test\n data\ndata\nfoobar:xxx\njustsometext\n:thisisacommentyay\ndata:test\n\n", ["test\n\ntest"]],
  "format-leading-space": ["data:\ttest\rdata: \ndata:test\n\n", ["\ttest\n\ntest"]],
  "format-newlines": ["data:test\r\ndata\ndata:test\r\n\r", ["test\n\ntest"]],
  "format-null-character": ["data:\0\n\n", ["\0"]],
  "CR, LF and CRLF alone": ["data:1\r\rdata:2\n\ndata:3\r\n\r\ndata:4\n\rdata:5\r\n\n", ["1", "2", "3", "4", "5"]],
  "a block without data dispatches nothing": ["event: message\n\nid: 5\n\nretry: 7\n\n:x\n\ndata:1\n\n", ["1"]],
  "the name of a block is not that of the next": ["event: other\n\ndata:1\n\n", ["1"]],
};
for (const [name, [text, due]] of Object.entries(FORMAT)) {
  test(`[${name}] the format of a stream, whole and byte by byte`, async () => {
    const bytes = Buffer.from(text);
    const slow = async (_, response) => {
      response.writeHead(200, TYPE);
      for (let at = 0; at < bytes.length; at += Math.ceil(bytes.length / 64)) {
        response.write(bytes.subarray(at, at + Math.ceil(bytes.length / 64)));
        await new Promise(setImmediate);
      }
    };
    for (const answer of [text, slow]) {
      const one = site.source(answer);
      await until(() => one.events.length >= due.length, JSON.stringify(one.told));
      assert.deepEqual(one.told, ["open 1", ...due]);
    }
  });
}

test("[format-data-before-final-empty-line] an unfinished block is not dispatched, its id not taken", async () => {
  const one = site.source((request, response, time) => sends(time === 1 ? "retry:30\ndata:test1\n\nid:test\ndata:test2" : "data:test3\n\n", { end: time === 1 })(request, response));
  await until(() => one.events.length === 2);
  assert.deepEqual(one.events.map(({ data, lastEventId }) => [data, lastEventId]), [["test1", ""], ["test3", ""]]);
  assert.equal(site.asked.get(one.path)[1].headers["last-event-id"], undefined);
});

test("[format-field-event] names of events", async () => {
  const one = site.source("event:test\ndata:x\n\nevent:Test\ndata:y\n\ndata:z\n\n", { types: ["test", "message"] });
  await until(() => one.events.length === 2);
  assert.deepEqual(one.events.map(({ type, data }) => [type, data]), [["test", "x"], ["message", "z"]]);
});

test("[format-field-id, -2, -3] an id stays until another one comes; an empty one resets it", async () => {
  const one = site.source((request, response, time) =>
    sends(time === 1 ? "id: 1\ndata:a\n\ndata:b\n\nid:…\ndata:c\n\nid\ndata:d\n\nid:7\n\n" : `data:${request.headers["last-event-id"]}\n\n`, { end: time === 1 })(request, response));
  await until(() => one.events.length === 5);
  assert.deepEqual(one.events.map(({ data, lastEventId }) => [data, lastEventId]), [["a", "1"], ["b", "1"], ["c", "…"], ["d", ""], ["7", "7"]]);
});

test("[format-field-id-null] an id with NUL is ignored", async () => {
  for (const id of ["\0\0", "x\0", "\0x", "x\0x", " \0"]) {
    const one = site.source(`id:good\nid:${id}\ndata:a\n\n`);
    await until(() => one.events.length === 1);
    assert.equal(one.events[0].lastEventId, "good");
  }
});

test("[format-field-retry, -bogus] only digits are a delay", async () => {
  const at = [];
  const one = site.source((request, response, time) => {
    at.push(performance.now());
    sends(time === 1 ? "retry:200\nretry:1x\nretry: -5\nretry:1.5\nretry:+1\nretry:\ndata:x\n\n" : "data:again\n\n", { end: time === 1 })(request, response);
  });
  await until(() => one.events.length === 2);
  assert.ok(at[1] - at[0] >= 195, `${at[1] - at[0]} ms`);
});

test("[format-utf-8] a stream is UTF-8, whatever its type says", async () => {
  const one = site.source("data:ok…\n\n", { headers: { "content-type": "text/event-stream;charset=windows-1252" } });
  await until(() => one.events.length === 1);
  assert.equal(one.events[0].data, "ok…");
});

test("[format-mime-trailing-semicolon, -valid-bogus, -bogus] what is a stream", async () => {
  for (const type of ["text/event-stream;", "text/event-stream ; x", "TEXT/EVENT-STREAM"]) {
    const one = site.source("data:a\n\n", { headers: { "content-type": type } });
    await until(() => one.events.length === 1, type);
  }
  for (const type of ["x bogus", "text/event-stream-2", "text/plain;text/event-stream"]) {
    const one = site.source("data:a\n\n", { headers: { "content-type": type } });
    await until(() => one.readyState === 2, type);
    assert.deepEqual(one.told, ["error 2"], type);
  }
});

test("[request-accept, request-cache-control, request-credentials] the request", async () => {
  const asked = [];
  const told = async (url, init) => {
    asked.push(init);
    return fetch(url, init);
  };
  for (const withCredentials of [false, true]) {
    const one = site.source("data:a\n\n", { fetch: told, withCredentials });
    await until(() => one.events.length === 1);
    const [request] = site.asked.get(one.path);
    assert.equal(request.headers.accept, "text/event-stream");
    assert.equal(request.method, "GET");
  }
  assert.deepEqual(asked.map(({ credentials, cache }) => [credentials, cache]), [["same-origin", "no-store"], ["include", "no-store"]]);
});

test("[request-redirect] the origin of events is that of where it went; `url` stays", async () => {
  const other = await StreamSite.start();
  try {
    const there = other.base + other.serve("data:a\n\n");
    const one = site.source((_, response) => response.writeHead(302, { location: there }).end());
    await until(() => one.events.length === 1);
    assert.equal(one.events[0].origin, other.base);
    assert.equal(one.url, site.base + one.path);
    one.close();
  } finally {
    other.close();
  }
});

test("[request-status-error] one error, and nothing after it", async () => {
  for (const status of [202, 206, 210, 299, 305, 410, 418, 502]) {
    const one = site.source("data:a\n\n", { status });
    await until(() => one.readyState === 2, String(status));
    assert.deepEqual(one.told, ["error 2"], String(status));
    assert.equal(site.asked.get(one.path).length, 1);
  }
});

test("[eventsource-constructor-document-base, -url-bogus, -stringify, -empty-url] the URL", () => {
  const made = (url, base) => {
    if (base) globalThis.document = { baseURI: base };
    try {
      const one = new DualcastEventSource(url, { fetch: () => new Promise(() => {}), transports: ["fetch"] });
      one.close();
      return one.url;
    } finally {
      delete globalThis.document;
    }
  };
  const base = "https://pages.example/folder/page?x#y";
  assert.equal(made("stream?a=1", base), "https://pages.example/folder/stream?a=1");
  assert.equal(made("", base), "https://pages.example/folder/page?x");
  assert.equal(made(null, base), "https://pages.example/folder/null");
  assert.equal(made(undefined, base), "https://pages.example/folder/undefined");
  assert.equal(made({ toString: () => "/s" }, base), "https://pages.example/s");
  assert.equal(made(new URL("https://a.example/s#f")), "https://a.example/s#f");
  for (const url of ["http://this is invalid/", "//", "https://a:99999/"]) {
    assert.throws(() => made(url, base), { name: "SyntaxError", code: 12 });
  }
  assert.throws(() => made("relative"), { name: "SyntaxError" }, "nothing to resolve it against");
});

test("[eventsource-eventtarget, interfaces] listeners of every kind, in their order", async () => {
  const calls = [];
  const abort = new AbortController();
  const one = site.source("data:1\n\ndata:2\n\ndata:3\n\n", { types: [] });
  const object = { handleEvent: function (event) { calls.push(["object", this === object, event.data]); } };
  one.addEventListener("message", object);
  one.addEventListener("message", ({ data }) => calls.push(["once", data]), { once: true });
  one.addEventListener("message", ({ data }) => calls.push(["signal", data]) && abort.abort(), { signal: abort.signal, passive: true });
  one.onmessage = function (event) {
    calls.push(["attribute", this === one, event.data]);
  };
  one.addEventListener("message", object);
  one.addEventListener("message", null);
  one.dispatchEvent(new MessageEvent("message", { data: "0" }));
  assert.deepEqual(calls.splice(0), [["object", true, "0"], ["once", "0"], ["signal", "0"], ["attribute", true, "0"]]);
  await until(() => calls.length === 6);
  one.removeEventListener("message", object);
  assert.deepEqual(calls, ["1", "2", "3"].flatMap((data) => [["object", true, data], ["attribute", true, data]]));
});

test("[eventsource-prototype, eventsource-onopen] one class with its names, no event while the script runs", async () => {
  assert.equal(String(Object.getPrototypeOf(DualcastEventSource)), String(EventTarget));
  const one = site.source("data:a\n\n");
  assert.ok(!Object.keys(one).includes("readyState"));
  assert.deepEqual([one.readyState, one.told], [0, []]);
  await Promise.resolve();
  assert.deepEqual([one.readyState, one.told], [0, []], "told in a task of its own");
  let opened;
  one.onopen = (event) => {
    opened = [event.type, event.bubbles, event.cancelable, event instanceof MessageEvent, one.readyState];
  };
  await until(() => one.events.length === 1);
  assert.deepEqual(opened, ["open", false, false, false, 1]);
  const [event] = one.events;
  assert.deepEqual([event.bubbles, event.cancelable, event.source, event.ports.length], [false, false, null, 0]);
});

test("[eventsource-close] close() in any handler ends it at once", async () => {
  for (const type of ["open", "message", "error"]) {
    const one = site.source((request, response) => sends("retry:20\ndata:1\n\ndata:2\n\n", { end: true })(request, response));
    let states;
    one.addEventListener(type, () => {
      one.close();
      states = [one.readyState, one.told.length];
    });
    await until(() => states);
    await new Promise((done) => setTimeout(done, 80));
    assert.equal(one.readyState, 2);
    assert.equal(states[0], 2);
    // What stood before it in the list of listeners has been told; nothing after that.
    assert.equal(one.told.length - states[1] <= 1, true);
    assert.equal(site.asked.get(one.path).length, 1);
  }
});

test("[eventsource-reconnect] open and error alternate; the state is there when they are told", async () => {
  const one = site.source((request, response, time) => (time === 2 ? request.socket.destroy() : sends(`data:${time}\n\n`, { end: time < 4 })(request, response)));
  await until(() => one.told.includes("4"));
  assert.deepEqual(one.told, ["open 1", "1", "error 0", "error 0", "open 1", "3", "error 0", "open 1", "4"]);
});
