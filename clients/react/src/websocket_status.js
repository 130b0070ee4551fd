import { OFF, labelsOf } from "@dualcast/client/stores";
import { createElement as h, useContext } from "react";

import { DualcastContext, useConnection } from "./context.js";

/**
 * @typedef {object} WebSocketStatusProps
 * @property {Partial<import("@dualcast/client/stores").Connection> & {connected: boolean}} [connection] in place of the
 *   provider's: then none is needed
 * @property {() => void} [onConnect] in place of the client's `connect()`
 * @property {() => void} [onDisconnect] in place of the client's `disconnect()`
 * @property {boolean} [controls] buttons to connect and disconnect; default true
 * @property {Partial<import("@dualcast/client/stores").Labels>} [labels] `EN` or own words; default Chinese
 * @property {string} [className] beside `dc-status`
 */

/** @param {string} word @param {(() => void) | undefined} onClick */
const button = (word, onClick) => h("button", { type: "button", className: "dc-button", onClick, disabled: !onClick }, word);

/**
 * The connection in words (已连接, 未连接) and colour, and buttons to connect and to disconnect. A screen reader is
 * told when the word changes, not of every attempt between.
 * @param {WebSocketStatusProps} props
 */
export function WebSocketStatus({ connection, onConnect, onDisconnect, controls = true, labels, className = "" }) {
  const own = useConnection();
  const client = useContext(DualcastContext)?.client;
  const { status, connected, transport, stopped } = { ...OFF, ...(connection ?? own) };
  const words = labelsOf(labels);
  const word = connected ? words.connected : words.disconnected;
  const busy = status === "connecting" || status === "waiting";
  const detail = connected ? transport : busy || status === "stopped" ? words[status] : null;
  const connect = onConnect ?? (client && (() => client.connect()));
  const disconnect = onDisconnect ?? (client && (() => client.disconnect()));
  return h(
    "div",
    {
      className: `dc-status ${className}`.trim(),
      role: "group",
      "aria-label": words.status,
      lang: words.lang,
      "data-status": connected ? "live" : status,
      title: stopped?.reason || undefined,
    },
    h("span", { className: "dc-status-dot", "aria-hidden": true }),
    h("span", { className: "dc-status-text", role: "status", "aria-live": "polite" }, word),
    detail && h("span", { className: "dc-status-detail" }, detail),
    controls &&
      (connected || busy ? button(words.disconnect, disconnect) : button(words.connect, connect)),
  );
}
