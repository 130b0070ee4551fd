import { createElement as h, useEffect } from "react";
import { EN } from "@dualcast/client/stores";
import { WebSocketStatus } from "./status.js";
import { Facts, SendForm } from "./test_forms.js";
import { TestLog, useTestLog } from "./test_log.js";
import { useWebSocketByPage } from "./use_websocket_by_page.js";

const EXAMPLES = {
  heartbeat: { type: "heartbeat", timestamp: 123456 },
  typing: { action: "typing", conversation_id: "conv_1", data: { is_typing: true } },
  read: { action: "read", conversation_id: "conv_1", data: { message_ids: ["m1"] } },
};

/** A page to try the page's socket by hand: what is configured for it, connecting, any frame, a live log. */
export function TestWebSocketPage() {
  const { connectionStatus, reason, config, sendMessage, onMessage } = useWebSocketByPage();
  const log = useTestLog();
  const { add } = log;
  useEffect(() => onMessage(({ type: _type, ...message }) => add("in", message)), [onMessage, add]);
  useEffect(() => add("info", reason ? `${connectionStatus} (${reason})` : connectionStatus), [connectionStatus, reason, add]);

  const send = (/** @type {unknown} */ frame) => {
    const taken = sendMessage(frame);
    if (taken) add("out", frame);
    return taken;
  };
  return h(
    "main",
    { className: "dc-test" },
    h("h1", null, "Test of the page's socket"),
    h(WebSocketStatus, { labels: EN }),
    reason === "unauthenticated" && h("p", { role: "status" }, "Nobody is signed in: there is no token."),
    h(Facts, {
      facts: {
        status: connectionStatus,
        enabled: String(config.enabled),
        "needs a token": String(config.requireAuth),
        "connects by itself": String(config.autoConnect),
        type: config.connectionType,
        features: config.features.join(", "),
      },
    }),
    h(SendForm, { examples: EXAMPLES, onSend: send }),
    h(TestLog, { log }),
  );
}
