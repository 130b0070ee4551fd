// A small application of the older contracts, for a browser: `show(part, props)` mounts a part of it in StrictMode.

import { ChatPage, WebSocketStatus, definePages, authService, testWebSocketRoute, useWebSocket, useWebSocketByPage, websocketTestRoute } from "@dualcast/react/legacy";
import { StrictMode, createElement as h, useEffect, useSyncExternalStore, version } from "react";
import { createRoot } from "react-dom/client";
import "@dualcast/react/style.css";
import "@dualcast/react/src/legacy/websocket_test_page.css";

let token = "";
authService.use({ read: () => token });
definePages({ "/orders": { connectionType: "orders", features: ["system_notifications"] } });

window.version = version;
window.seen = [];
window.told = [];
window.sign = (given) => {
  token = given;
  authService.changed();
};

function Hook({ userId, token: given, name }) {
  window.hook = useWebSocket(userId, given, {
    onMessage: ({ type, data }) => told.push([name, type, data?.title]),
    onConnect: () => told.push([name, "connect"]),
    onDisconnect: ({ code }) => told.push([name, "disconnect", code]),
  });
  const { subscribe } = window.hook;
  useEffect(() => subscribe("notifications"), [subscribe]);
  return h("p", { id: "hook" }, window.hook.connectionStatus);
}

/** A page as applications have them: the hook, the status, and what comes. */
function Plain({ name }) {
  const { isConnected, connectionStatus, lastMessage, sendMessage, config } = useWebSocketByPage();
  window.page = { isConnected, connectionStatus, lastMessage, sendMessage, config };
  useEffect(() => {
    if (lastMessage?.action === "new_message") seen.push(lastMessage.data.content);
  }, [lastMessage]);
  return h("section", { id: "plain", "data-name": name }, h("h1", null, name), h(WebSocketStatus), h("p", { id: "last" }, lastMessage?.action ?? "none"));
}

const ROUTES = [
  { path: "/chat", Component: () => [h(Plain, { key: 1, name: "chat" }), h(ChatPage, { key: 2, conversationId: window.conversation })] },
  ...["/admin", "/orders", "/login"].map((path) => ({ path, Component: () => h(Plain, { key: path, name: path.slice(1) }) })),
  websocketTestRoute,
  testWebSocketRoute,
];
const listeners = new Set();
window.go = (path) => {
  history.pushState(null, "", path);
  for (const listener of listeners) listener();
};
const watch = (listener) => {
  listeners.add(listener);
  addEventListener("popstate", listener);
  return () => {
    listeners.delete(listener);
    removeEventListener("popstate", listener);
  };
};

function Site() {
  const path = useSyncExternalStore(watch, () => location.pathname);
  const { Component } = ROUTES.find((one) => one.path === path) ?? { Component: () => h(Plain, { name: "home" }) };
  const link = ({ path: to }) =>
    h("a", { key: to, href: to, onClick: (event) => (event.preventDefault(), go(to)) }, to.slice(1));
  return [h("nav", { key: "nav" }, [{ path: "/home" }, ...ROUTES].map(link)), h(Component, { key: path })];
}

const root = createRoot(document.getElementById("root"));
const PARTS = { hook: Hook, site: Site, none: () => null };
window.show = (part, props) => root.render(h(StrictMode, null, h(PARTS[part] ?? window.guide[part], props)));
document.body.dataset.ready = "yes";
