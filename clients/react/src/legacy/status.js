import { createElement as h } from "react";
import { WebSocketStatus as Status } from "../websocket_status.js";
import { usePageSocket } from "./page_context.js";

/** The words of the own client's status. @type {Record<import("./client/types.js").ConnectionStatus, "off" | "connecting" | "live" | "waiting" | "stopped">} */
const WORDS = { disconnected: "off", connecting: "connecting", connected: "live", reconnecting: "waiting", error: "stopped" };

/** Where `connect()` would do nothing. @type {readonly import("./client/types.js").Reason[]} */
const UNWANTED = ["disabled", "login", "unauthenticated"];

/**
 * What `<WebSocketStatus connection={…}>` shows of a socket of these contracts.
 * @param {Readonly<import("./client/types.js").Snapshot>} snapshot
 */
export const connectionOf = ({ isConnected, connectionStatus, reason }) => ({
  connected: isConnected,
  status: WORDS[connectionStatus],
  transport: isConnected ? /** @type {const} */ ("websocket") : null,
  stopped: connectionStatus === "error" ? { code: 0, reason } : null,
});

/**
 * 已连接 or 未连接, and buttons to connect and to disconnect: of the page's socket. Where none is wanted there are no buttons.
 * @param {Omit<import("../websocket_status.js").WebSocketStatusProps, "connection" | "onConnect" | "onDisconnect">} props
 */
export function WebSocketStatus(props) {
  const { socket, snapshot } = usePageSocket();
  return h(Status, {
    controls: !UNWANTED.includes(snapshot.reason),
    ...props,
    connection: connectionOf(snapshot),
    onConnect: socket.connect,
    onDisconnect: socket.disconnect,
  });
}
