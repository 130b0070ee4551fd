import { createElement as h, useEffect, useId, useState } from "react";
import { WebSocketStatus } from "./status.js";
import { useChat } from "./use_chat.js";
import { useWebSocketByPage } from "./use_websocket_by_page.js";

const WORDS = { sending: "…", sent: "✓", failed: "✗" };

/**
 * An example of a business page: a conversation on the page's socket.
 * @param {{conversationId: string} & import("./use_chat.js").ChatOptions} props
 */
export function ChatPage({ conversationId, ...options }) {
  const { lastMessage, hasFeature } = useWebSocketByPage();
  const chat = useChat(conversationId, options);
  const [text, setText] = useState("");
  const id = useId();

  const { markRead } = chat;
  useEffect(() => {
    const isNew = lastMessage?.action === "new_message" && lastMessage.conversation_id === conversationId;
    if (isNew && document.visibilityState === "visible") markRead([lastMessage.data.id]);
    // eslint-disable-next-line react-hooks/exhaustive-deps
  }, [lastMessage]); // once for each message

  const send = (/** @type {import("react").FormEvent} */ event) => {
    event.preventDefault();
    if (!text.trim()) return;
    chat.send(text);
    chat.setTyping(false);
    setText("");
  };
  const write = (/** @type {any} */ event) => {
    setText(event.target.value);
    chat.setTyping(event.target.value !== "");
  };
  return h(
    "main",
    { className: "dc-test dc-chat" },
    h(WebSocketStatus),
    h(
      "ol",
      { className: "dc-test-log", role: "log", "aria-label": "Messages", tabIndex: 0 },
      chat.messages.map((one) =>
        h(
          "li",
          { key: one.id, "data-from": one.sender_id || "me", "data-status": one.status },
          one.sender_id && h("b", null, one.sender_id, ": "),
          h("span", { dir: "auto" }, typeof one.content === "string" ? one.content : JSON.stringify(one.content)),
          one.status && h("small", null, " ", WORDS[one.status]),
          one.read_by.length > 0 && h("small", { "data-read": one.read_by.length }, ` read by ${one.read_by.length}`),
          one.status === "failed" && h("button", { type: "button", onClick: () => chat.resend(one) }, "Send again"),
        ),
      ),
    ),
    h("p", { role: "status", "data-typing": chat.typing.join(" ") }, chat.typing.length ? `${chat.typing.join(", ")} …` : " "),
    hasFeature("messaging") &&
      h(
        "form",
        { className: "dc-test-row", onSubmit: send },
        h("label", { htmlFor: id }, "Message"),
        h("input", { id, dir: "auto", maxLength: 4_000, autoComplete: "off", value: text, onChange: write }),
        h("button", null, "Send"),
      ),
  );
}
