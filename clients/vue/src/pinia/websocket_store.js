import { DualcastClient, UnauthorizedError } from "@dualcast/client";
import { defineStore, getActivePinia } from "pinia";
import { onScopeDispose, ref, shallowRef } from "vue";
import { isClient } from "../client.js";
import { showDesktop } from "../desktop.js";
import { config, hasCredentials, serverUrl, socketUrl, tokenOf } from "./config.js";
import { useNotificationStore } from "./notification_store.js";

/** @typedef {{type?: string, data?: any}} Message */

const FIRST_MS = 1_000;
const LONGEST_MS = 30_000;
/** Closes of the older contract that come after the open and say no: bad token, server full, a newer connection took the place. */
const REFUSED = new Set([1008, 1013, 4409]);
/** What the native protocol takes from an application (PROTO-21). */
const COMMANDS = new Set(
  "inbox counters read seen unread archive delete message typing message_read presence ping".split(" "),
);

/**
 * The store of older Vue pages (checklist S1.15 to S1.29), over the socket they know or, with `transport: "dualcast"`,
 * over the native protocol: the same state, the same methods. Differences of the latter: `ws` is the
 * DualcastClient, which comes back by itself and does not give up after `maxReconnectAttempts`; `connected` is also
 * true over SSE; `send()` takes commands of the protocol.
 *
 * Reconnects are not for a close that this store asked for: older code came back after its own `disconnect()`.
 */
export const useWebSocketStore = defineStore("websocket", () => {
  const ws = shallowRef(/** @type {WebSocket | DualcastClient | null} */ (null));
  const connected = ref(false);
  const reconnectTimer = shallowRef(/** @type {ReturnType<typeof setTimeout> | null} */ (null));
  const reconnectAttempts = ref(0);
  const maxReconnectAttempts = ref(5);
  let close = () => {};
  const root = getActivePinia(); // a page may have several

  const log = () => config().log ?? console;

  /** Connects with the token there is now. An existing connection is closed first. */
  function connect() {
    clear();
    if (!hasCredentials()) {
      log().warn("[WS] no token: not connected");
      return;
    }
    try {
      if (config().transport === "dualcast") openClient();
      else openSocket(tokenOf());
    } catch {
      // An address that is none, or a policy of the page. The error would show the address, and with it the token.
      clear();
      log().error("[WS] the connection could not be made");
    }
  }

  /** @param {string} token */
  function openSocket(token) {
    const socket = new (config().WebSocket ?? WebSocket)(socketUrl(token));
    ws.value = socket;
    let before = 0;
    close = () => {
      socket.onopen = socket.onclose = socket.onerror = socket.onmessage = null;
      socket.close();
    };
    socket.onopen = () => {
      connected.value = true;
      before = reconnectAttempts.value;
      reconnectAttempts.value = 0;
    };
    socket.onerror = () => {
      connected.value = false;
      log().error("[WS] the connection failed");
    };
    socket.onclose = ({ code }) => {
      close = () => {};
      // An open that was refused was none: or else tabs evict one another every second, for ever.
      if (REFUSED.has(code)) reconnectAttempts.value = Math.max(before, reconnectAttempts.value);
      connected.value = false;
      ws.value = null;
      reconnect();
    };
    socket.onmessage = ({ data }) => {
      let message;
      try {
        message = JSON.parse(data);
      } catch (error) {
        log().error("[WS] a message that is no JSON", /** @type {Error} */ (error).message);
        return;
      }
      handleMessage(message);
    };
  }

  function reconnect() {
    if (reconnectAttempts.value >= maxReconnectAttempts.value) {
      log().error(`[WS] gave up after ${reconnectAttempts.value} attempts`);
      return;
    }
    const delay = Math.min(FIRST_MS * 2 ** reconnectAttempts.value, LONGEST_MS);
    reconnectTimer.value = setTimeout(() => {
      reconnectTimer.value = null;
      reconnectAttempts.value += 1;
      connect();
    }, delay);
  }

  function openClient() {
    const { dualcast = {}, WebSocket } = config();
    const client =
      isClient(dualcast) ? dualcast : new DualcastClient({ url: serverUrl(), getToken, WebSocket, ...dualcast });
    let before = "";
    const offs = [
      client.on("connection", ({ status, stopped }) => {
        connected.value = status === "live";
        if (status === "live") reconnectAttempts.value = 0;
        else if (status === "waiting" && before === "connecting") reconnectAttempts.value += 1;
        else if (stopped && before !== "stopped") log().error(`[WS] stopped: ${stopped.reason}`);
        before = status;
      }),
      client.on("welcome", ({ user }) => handleMessage({ type: "connected", data: { user_id: user } })),
      client.on("notification", ({ data }) => handleMessage({ type: "notification", data })),
    ];
    ws.value = client;
    close = () => {
      for (const off of offs) off();
      client.disconnect();
    };
    client.connect();
    connected.value = client.status.status === "live"; // one of the app's that was connected before
  }

  /** Asked whenever the client needs one: a token that was renewed meanwhile is found. */
  async function getToken() {
    const token = tokenOf();
    if (!token) throw new UnauthorizedError();
    return token;
  }

  /** @param {Message | null} message */
  function handleMessage(message) {
    switch (message?.type) {
      case "connected":
        log().log("[WS] connected", message.data?.user_id ?? "");
        break;
      case "notification":
        handleNotification(message.data);
        break;
      case "heartbeat":
        break;
      default:
        log().warn("[WS] 未知消息类型", message?.type);
    }
  }

  /** @param {any} data */
  function handleNotification(data) {
    if (!data?.title || !data.type) return; // section 3.7
    const { notifications, desktop = true } = config();
    const sink = (typeof notifications === "function" ? notifications() : notifications) ?? useNotificationStore(root);
    const { id, type, title, content, link, source, created_at, status = "unread" } = data;
    sink.addNotification({ id, type, title, content, link, source, created_at, status });
    if (desktop) showDesktop(data, { tag: id });
  }

  function clear() {
    if (reconnectTimer.value !== null) clearTimeout(reconnectTimer.value);
    reconnectTimer.value = null;
    const end = close;
    close = () => {};
    end();
    ws.value = null;
    connected.value = false;
  }

  /** Ends the connection and every attempt at one. */
  function disconnect() {
    clear();
    reconnectAttempts.value = 0;
  }

  /** Sends a message as JSON. @param {any} message */
  function send(message) {
    const way = ws.value;
    if (!way || !connected.value) {
      log().warn("[WS] not connected: the message was not sent");
    } else if (isClient(way)) {
      const { type, ref: _, ...fields } = message;
      if (!COMMANDS.has(type)) log().warn("[WS] not a command of the protocol: the message was not sent", type);
      else way.request(type, fields).catch(({ code }) => log().warn("[WS] the message was refused:", code));
    } else way.send(JSON.stringify(message));
  }

  onScopeDispose(disconnect);

  return {
    ws,
    connected,
    reconnectTimer,
    reconnectAttempts,
    maxReconnectAttempts,
    connect,
    disconnect,
    send,
  };
});
