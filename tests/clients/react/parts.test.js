import assert from "node:assert/strict";
import { createRequire } from "node:module";
import { test } from "node:test";

import { EN, NotificationBell, WebSocketStatus, useDualcast } from "../../../clients/react/src/index.js";

const require = createRequire(new URL("../../../clients/package.json", import.meta.url));
const { createElement: h } = require("react");
const { renderToString } = require("react-dom/server");

test("S3.46 the status needs no provider when it is given the connection", () => {
  const html = (props) => renderToString(h(WebSocketStatus, { controls: false, ...props }));
  assert.match(html({ connection: { connected: true } }), />已连接</);
  assert.match(html({ connection: { connected: false, status: "waiting" } }), />未连接<.*等待重连/);
  assert.match(html({ labels: EN }), />Not connected</);
  assert.match(html({ labels: { connected: "on", disconnected: "away" } }), />away</);
  assert.match(renderToString(h(WebSocketStatus, { connection: { connected: true }, onDisconnect() {} })), /<button[^>]*>断开</);
});

test("hooks outside of a provider say so", () => {
  const Wrong = () => String(useDualcast());
  for (const part of [Wrong, NotificationBell]) assert.throws(() => renderToString(h(part)), /outside of <DualcastProvider>/);
});
