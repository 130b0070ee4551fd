import { createElement as h, useRef, useState } from "react";
import { EN } from "@dualcast/client/stores";
import { WebSocketStatus } from "../websocket_status.js";
import { isDevelopment } from "./env.js";
import { connectionOf } from "./status.js";
import { Facts, Field, Form, SendForm } from "./test_forms.js";
import { TestLog, frameOf, useTestLog } from "./test_log.js";
import { useWebSocket } from "./use_websocket.js";

const EXAMPLES = {
  ping: { type: "ping" },
  "subscribe to a room": { type: "subscribe", room: "notifications" },
  "leave a room": { type: "unsubscribe", room: "notifications" },
  statistics: { type: "get_stats" },
  "an unknown type": { type: "x" },
  "no JSON": "hello",
};

/**
 * `userId` and `token` are what the fields begin with: in development the demo user of `dualcast serve --dev`.
 * @typedef {{url?: string, userId?: string, token?: string, WebSocket?: typeof WebSocket}} WebSocketTestPageProps
 */

/**
 * A page to try the contract `rooms` by hand: whose connection, connecting, rooms, pings, any frame, a live log.
 * @param {WebSocketTestPageProps} props
 */
export function WebSocketTestPage({ url, userId = isDevelopment() ? "demo-user" : "", token = isDevelopment() ? "demo-token" : "", ...given }) {
  const [user, setUser] = useState(userId);
  const [secret, setSecret] = useState(token);
  const [who, setWho] = useState({ user: "", secret: "" });
  const [room, setRoom] = useState("notifications");
  const [rooms, setRooms] = useState(/** @type {readonly string[]} */ ([]));
  const [stats, setStats] = useState(/** @type {any} */ (null));
  const [trip, setTrip] = useState(/** @type {number | null} */ (null));
  const [times, setTimes] = useState({ connects: 0, disconnects: 0 });
  const pinged = useRef(0);
  const log = useTestLog();

  const socket = useWebSocket(who.user, who.secret, {
    url,
    ...given,
    onConnect: () => {
      setTimes((before) => ({ ...before, connects: before.connects + 1 }));
      log.add("info", "connected");
    },
    onDisconnect: ({ code }) => {
      setTimes((before) => ({ ...before, disconnects: before.disconnects + 1 }));
      setRooms([]);
      log.add("info", `disconnected (${code})`);
    },
    onMessage: (message) => {
      const { type, data, room: named } = message;
      if (type === "stats") setStats(data);
      if (type === "pong" && pinged.current) setTrip(Math.round(performance.now() - pinged.current));
      if (type === "pong") pinged.current = 0;
      if (type === "room_subscribed") setRooms((before) => [...new Set([...before, named])].slice(-50));
      if (type === "room_unsubscribed") setRooms((before) => before.filter((one) => one !== named));
      log.add("in", frameOf(message));
    },
  });

  const send = (/** @type {unknown} */ frame) => {
    const taken = socket.sendMessage(frame);
    if (taken) log.add("out", frame);
    return taken;
  };
  const connect = () => {
    if (user === who.user && secret === who.secret) socket.connect();
    else setWho({ user, secret });
  };
  const change = (/** @type {"subscribe" | "unsubscribe"} */ what) => () => {
    socket[what](room);
    log.add("out", { type: what, room });
  };
  const ping = () => {
    pinged.current = performance.now();
    send({ type: "ping" });
  };
  const off = !socket.isConnected;

  return h(
    "main",
    { className: "dc-test" },
    h("h1", null, "WebSocket test page"),
    h(WebSocketStatus, { connection: connectionOf(socket), controls: false, labels: EN }),
    socket.reason && h("p", { role: "status", "data-reason": socket.reason }, `No connection: ${socket.reason}`),
    h(
      Form,
      { label: "Connection", onSubmit: connect },
      h(Field, { label: "User", name: "user", value: user, onChange: setUser, required: true }),
      h(Field, { label: "Token", name: "token", type: "password", value: secret, onChange: setSecret, required: true }),
      h("button", { name: "connect" }, "Connect"),
      h("button", { type: "button", name: "disconnect", onClick: socket.disconnect, disabled: socket.connectionStatus === "disconnected" }, "Disconnect"),
    ),
    h(
      Form,
      { label: "Rooms", onSubmit: change("subscribe") },
      h(Field, { label: "Room", name: "room", value: room, onChange: setRoom, required: true }),
      h("button", { name: "subscribe", disabled: off }, "Subscribe"),
      h("button", { type: "button", name: "unsubscribe", onClick: change("unsubscribe"), disabled: off }, "Unsubscribe"),
      h("button", { type: "button", name: "ping", onClick: ping, disabled: off }, "Ping"),
      h("button", { type: "button", name: "stats", onClick: () => send({ type: "get_stats" }), disabled: off }, "Statistics"),
    ),
    h(Facts, {
      facts: {
        status: socket.connectionStatus,
        "round trip": trip === null ? null : `${trip} ms`,
        connects: times.connects,
        disconnects: times.disconnects,
        rooms: rooms.join(", ") || null,
        "connections at the server": stats?.total_connections,
        "users at the server": stats?.total_users,
      },
    }),
    h(SendForm, { examples: EXAMPLES, onSend: send }),
    h(TestLog, { log }),
  );
}
