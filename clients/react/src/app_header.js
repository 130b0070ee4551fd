import { createElement as h } from "react";

import { NotificationBell } from "./notification_bell.js";
import { WebSocketStatus } from "./websocket_status.js";

/**
 * A page's header with the live connection status and the bell.
 * @param {object} props
 * @param {import("react").ReactNode} [props.title]
 * @param {import("react").ReactNode} [props.children] between title and status, such as a `<nav>`
 * @param {boolean} [props.bell] default true; needs a provider
 * @param {boolean} [props.controls] buttons to connect and disconnect; default false
 * @param {import("./websocket_status.js").WebSocketStatusProps["connection"]} [props.connection] in place of the provider's
 * @param {Partial<import("@dualcast/client/stores").Labels>} [props.labels]
 * @param {string} [props.className] beside `dc-header`
 */
export function AppHeader({ title, children, bell = true, controls = false, connection, labels, className = "" }) {
  return h(
    "header",
    { className: `dc-header ${className}`.trim() },
    title && h("span", { className: "dc-header-title" }, title),
    h("div", { className: "dc-header-content" }, children),
    h(WebSocketStatus, { controls, connection, labels }),
    bell && h(NotificationBell, { labels }),
  );
}
