// A page to try the contract `rooms` by hand: /api/v1/ws/{user}?token=… . Nothing but the browser's WebSocket.
import { element, line, parsed } from "./lines.js";

const TRIES = 5;
const RETRY_MS = 3_000;
const PING_MS = 30_000;
const list = element("list");
/** @type {WebSocket | null} */
let socket = null;
/** Timers of the connection there is. @type {{ping?: ReturnType<typeof setInterval>, retry?: ReturnType<typeof setTimeout>}} */
const timers = {};
let tries = 0;
const counts = { received: 0, sent: 0 };

/** @param {string} state `off`, `connecting`, `live` or `waiting` @param {string} [why] */
function shown(state, why = "") {
  const row = element("status");
  row.dataset.state = state;
  row.textContent = why ? `${state} · ${why}` : state;
  element("send").disabled = state !== "live";
  element("disconnect").disabled = state === "off";
}

/** @param {"received" | "sent"} what */
const count = (what) => (element(what).textContent = String((counts[what] += 1)));

/** @param {string} text */
function send(text) {
  if (socket?.readyState !== WebSocket.OPEN) return;
  socket.send(text);
  count("sent");
  line(list, text, "sent");
}

function connect() {
  leave();
  const [server, user, token] = ["server", "user", "token"].map((id) => element(id).value.trim());
  const base = server.replace(/^http/, "ws").replace(/\/+$/, "");
  const own = new WebSocket(`${base}/api/v1/ws/${encodeURIComponent(user)}?token=${encodeURIComponent(token)}`);
  socket = own;
  shown("connecting");
  own.onopen = () => {
    shown("live");
    send('{"type":"get_stats"}');
    timers.ping = setInterval(() => send('{"type":"ping"}'), PING_MS);
  };
  own.onmessage = ({ data }) => {
    count("received");
    if (parsed(data)?.type === "connection_established") tries = 0; // not in onopen: a refusal opens first, too
    line(list, String(data));
  };
  own.onerror = () => line(list, "the connection failed", "signal"); // a browser does not say why; `close` follows
  own.onclose = ({ code, reason }) => {
    if (socket !== own) return;
    clearInterval(timers.ping);
    line(list, `closed: ${code} ${reason}`, "signal");
    const final = code === 1000 || code === 4001 || code === 4003 || tries >= TRIES;
    shown(final ? "off" : "waiting", `${code} ${reason}`);
    if (final) return;
    tries += 1;
    timers.retry = setTimeout(connect, RETRY_MS * (0.5 + Math.random() / 2)); // not all pages at the same moment
  };
}

function leave() {
  clearInterval(timers.ping);
  clearTimeout(timers.retry);
  const own = socket;
  socket = null;
  own?.close(1000, "Manual disconnect");
  shown("off");
}

element("connection").addEventListener("submit", (/** @type {Event} */ event) => {
  event.preventDefault();
  tries = 0;
  connect();
});
element("disconnect").addEventListener("click", leave);
element("example").addEventListener("change", () => (element("message").value = element("example").value));
element("say").addEventListener("submit", (/** @type {Event} */ event) => {
  event.preventDefault();
  send(element("message").value);
});
element("clear").addEventListener("click", () => list.replaceChildren());
addEventListener("pagehide", leave);
