// The contract `topics` with nothing but the browser's WebSocket: /api/ws?token=… .
import { line, parsed } from "./lines.js";

const BASE = "ws://localhost:8000";
const TOPICS = ["import:task-123", "wallet_updates"];
const PING_MS = 30_000;
const TRIES = 5;

/** The user's token, kept by the page that logged them in. */
const ownToken = () => localStorage["access_token"] ?? "";

/** @param {string} token @param {string} [base] without a slash at the end */
export const socketUrl = (token = ownToken(), base = BASE) => `${base}/api/ws?token=${token}`; // a JWT needs no encoding

/**
 * Follows the import. Reconnects after any close but 1000, five times, and subscribes again.
 * @param {any} root with a `.status`, a `progress`, an `output` and a list
 * @param {{base?: string, retryMs?: number}} [options]
 * @returns {{close: () => void, readonly socket: WebSocket}}
 */
export function connect(root, { base = BASE, retryMs = 3_000 } = {}) {
  const [status, bar, percent, list] = [".status", "progress", "output", "ol"].map((name) => root.querySelector(name));
  let tries = 0;
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  let retry;
  let socket = open();

  /** @param {string} state @param {string} [why] */
  function shown(state, why = "") {
    status.dataset.state = state;
    status.textContent = why ? `${state} · ${why}` : state;
  }

  function open() {
    const own = new WebSocket(socketUrl(ownToken(), base));
    const ping = setInterval(() => {
      if (own.readyState === WebSocket.OPEN) own.send(JSON.stringify({ type: "ping" }));
    }, PING_MS);

    own.onopen = () => {
      shown("live");
      for (const topic of TOPICS) own.send(JSON.stringify({ type: "subscribe", topic })); // each time: the server forgets
    };
    own.onmessage = (event) => {
      tries = 0;
      const data = parsed(event.data);
      switch (data?.type) {
        case "import_progress":
          bar.value = data.data.progress;
          percent.textContent = `${data.data.progress} %`;
          line(list, `import ${data.data.status}: ${data.data.progress} %`);
          break;
        case "wallet_update":
          line(list, `wallet ${data.wallet_address}: ${JSON.stringify(data.data)}`);
          break;
        case "notification":
          line(list, `${data.data.title}: ${data.data.content}`);
          break;
        case "subscribed":
        case "error":
          line(list, data.type === "error" ? data.message : `subscribed to ${data.topic}`, "signal");
      }
    };
    own.onerror = () => line(list, "the connection failed", "signal"); // a browser does not say why; `close` follows
    own.onclose = ({ code, reason }) => {
      clearInterval(ping);
      const final = code === 1000 || code === 1008 || tries >= TRIES;
      line(list, `closed: ${code} ${reason}`, "signal");
      shown(final ? "off" : "waiting", `${code} ${reason}`);
      if (final) return;
      retry = setTimeout(() => (socket = open()), retryMs * 2 ** tries * (0.5 + Math.random() / 2));
      tries += 1;
    };
    return own;
  }

  return {
    close() {
      tries = TRIES;
      clearTimeout(retry);
      socket.close(1000, "Manual disconnect");
    },
    get socket() {
      return socket;
    },
  };
}
