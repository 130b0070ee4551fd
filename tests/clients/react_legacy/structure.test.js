// What imports what, what a server renders, and what the entry offers.

import assert from "node:assert/strict";
import { readFileSync, readdirSync } from "node:fs";
import { createRequire } from "node:module";
import { join, relative, resolve, dirname } from "node:path";
import { fileURLToPath } from "node:url";
import { test } from "node:test";

const SRC = fileURLToPath(new URL("../../../clients/react/src/", import.meta.url));
const LEGACY = join(SRC, "legacy");
const require = createRequire(join(SRC, "index.js"));

/** File → files of this package it imports; packages under "packages". Types do not count: they are gone at run time. */
const imports = new Map(
  readdirSync(LEGACY, { recursive: true })
    .filter((name) => name.endsWith(".js"))
    .map((name) => {
      const text = readFileSync(join(LEGACY, name), "utf8");
      const found = [...text.matchAll(/^(?:import|export)\b[^;]*?\bfrom "([^"]+)";$/gm)].map(([, from]) => from);
      const own = found.filter((from) => from.startsWith(".")).map((from) => relative(LEGACY, resolve(dirname(join(LEGACY, name)), from)));
      return [name, { own, packages: found.filter((from) => !from.startsWith(".")) }];
    }),
);

/** From the top down. A file imports files of its own layer or of one below. */
const LAYERS = [
  ["entry", /^index\.js$|^routes\.js$/],
  ["pages", /_page\.js$|^test_(log|forms)\.js$/],
  ["hooks", /^use_/],
  ["status and chat", /^status\.js$|^chat\/(api|state|read_marks)\.js$/],
  ["page", /^page_(context|socket)\.js$|^features\.js$/],
  ["client", /^client\/(index|rooms|conversations)\.js$/],
  ["core, adapters, handlers", /^client\//],
  ["auth and utils", /^(auth_service|device|env|server_config|page_config|page_path)\.js$|^chat\/types\.js$/],
];
const layerOf = (name) => LAYERS.findIndex(([, files]) => files.test(name));

test("S3.42 imports go down: page, hook, status and chat api, client, core; each arrow is there", () => {
  assert.ok(imports.size > 25);
  for (const [name, { own }] of imports) {
    assert.ok(layerOf(name) >= 0, `${name} has no layer`);
    for (const to of own.filter((one) => !one.startsWith(".."))) assert.ok(layerOf(to) >= layerOf(name), `${name} imports ${to}, which is above`);
  }
  const reaches = (from, to) => imports.get(from).own.includes(to);
  const arrows = [
    ["chat_page.js", "use_websocket_by_page.js"],
    ["chat_page.js", "status.js"],
    ["use_websocket.js", "client/rooms.js"],
    ["use_websocket_by_page.js", "page_context.js"],
    ["use_chat.js", "chat/api.js"],
    ["page_socket.js", "client/conversations.js"],
    ["page_socket.js", "auth_service.js"],
    ["page_socket.js", "device.js"],
    ...["connection", "heartbeat", "reconnect", "serializer", "message_queue", "handlers", "message_event_handler"].map((one) => ["client/index.js", `client/${one}.js`]),
    ["client/message_event_handler.js", "client/message_adapter.js"],
  ];
  for (const [from, to] of arrows) assert.ok(reaches(from, to), `${from} → ${to}`);
});

test("S3.42 nothing imports in a circle", () => {
  const done = new Set();
  const walk = (name, path) => {
    assert.ok(!path.includes(name), [...path, name].join(" → "));
    if (done.has(name)) return;
    for (const to of imports.get(name)?.own ?? []) walk(to, [...path, name]);
    done.add(name);
  };
  for (const name of imports.keys()) walk(name, []);
});

test("S3.6 client, chat and what they stand on know no React and no page", () => {
  for (const [name, { packages }] of imports)
    if (layerOf(name) >= layerOf("page_socket.js") && name !== "page_context.js") assert.ok(!packages.includes("react"), name);
});

test("S3.2 S3.19 S3.20 S3.99 everything renders on a server, where there is no page and no socket", async () => {
  const legacy = await import("../../../clients/react/src/legacy/index.js");
  const { createElement } = require("react");
  const { renderToString } = require("react-dom/server");
  const Hook = () => {
    const { isConnected, connectionStatus, lastMessage, config } = legacy.useWebSocketByPage();
    const own = legacy.useWebSocket("u1", "t1", {});
    return JSON.stringify([isConnected, connectionStatus, lastMessage, config.enabled, own.isConnected, own.sendMessage({})]);
  };
  const html = (Component, props) => renderToString(createElement(Component, props));
  assert.equal(html(Hook).replaceAll("&quot;", '"'), '[false,"disconnected",null,false,false,false]');
  assert.match(html(legacy.WebSocketStatus), /未连接/);
  assert.match(html(legacy.websocketTestRoute.Component), /WebSocket test page/);
  assert.match(html(legacy.testWebSocketRoute.Component), /Test of the page/);
  assert.match(html(legacy.ChatPage, { conversationId: "c" }), /未连接/);
});

test("no address with a token reaches a log: no module writes one", () => {
  for (const name of imports.keys()) assert.doesNotMatch(readFileSync(join(LEGACY, name), "utf8"), /console\./, name);
});
