// The contract `progress` with nothing but the browser's WebSocket: /ws/{client_id} .
import { line, parsed } from "./lines.js";

/** A count out of a total, in percent. @param {{progress: number, total: number}} frame */
export const percentage = ({ progress, total }) => (total > 0 ? (progress / total) * 100 : 0);

/**
 * Shows how a batch of reports gets on.
 * @param {any} root with a `.status`, a `progress`, an `output` and a list
 * @param {string} clientId the user, or the user and `:` and anything
 * @param {{base?: string, token?: string}} [options] `token`: none with `serve --dev`
 * @returns {WebSocket}
 */
export function follow(root, clientId, { base = "ws://localhost:8000", token = "" } = {}) {
  const [status, bar, output, list] = [".status", "progress", "output", "ol"].map((name) => root.querySelector(name));
  const query = token ? `?token=${encodeURIComponent(token)}` : "";
  const socket = new WebSocket(`${base}/ws/${encodeURIComponent(clientId)}${query}`);

  /** @param {string} state @param {string} [why] */
  const shown = (state, why = "") => {
    status.dataset.state = state;
    status.textContent = why ? `${state} · ${why}` : state;
  };
  shown("connecting");
  socket.onopen = () => {
    shown("live");
    socket.send(JSON.stringify({ type: "ping" }));
  };
  socket.onmessage = (event) => {
    const data = parsed(event.data);
    if (data?.type === "batch_report_progress") {
      bar.value = percentage(data);
      output.textContent = `${Math.round(percentage(data))}% · ${data.status}`;
      line(list, data.message);
    } else if (data?.type === "connection" || data?.type === "pong") {
      line(list, data.message ?? data.type, "signal");
    }
  };
  socket.onerror = () => line(list, "the connection failed", "signal"); // a browser does not say why; `close` follows
  socket.onclose = ({ code, reason }) => shown("off", `${code} ${reason}`);
  return socket;
}
