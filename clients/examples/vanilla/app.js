import { DualcastClient } from "@dualcast/client";
import { element, line } from "./lines.js";

const list = element("list");
/** @type {DualcastClient | null} */
let client = null;

element("login").addEventListener("submit", (/** @type {Event} */ event) => {
  event.preventDefault();
  leave();
  // The token stays in this variable: a page that keeps it in storage hands it to every script of its origin.
  const token = element("token").value.trim();
  client = new DualcastClient({
    url: element("server").value,
    getToken: () => token,
    channels: element("channels").value.split(",").map((/** @type {string} */ one) => one.trim()).filter(Boolean),
  });
  client.on("connection", shown);
  client.on("badge", ({ unread }) => badge(unread));
  client.on("notification", ({ data }) => line(list, data.content ? `${data.title}: ${data.content}` : data.title));
  client.on("publication", ({ event: type, channel, data }) => {
    if (type !== "notification" && type !== "inbox") line(list, `${channel} ${type} ${JSON.stringify(data)}`);
  });
  client.on("gap", ({ channel, reason }) => line(list, `${channel} has a hole (${reason})`, "signal"));
  client.connect();
});

/** @param {import("@dualcast/client/src/api.js").Status} status */
function shown({ status, transport, stopped }) {
  const row = element("status");
  row.dataset.state = status;
  row.textContent = [status, transport, stopped?.reason].filter(Boolean).join(" · ");
  element("disconnect").disabled = status === "off" || status === "stopped";
  element("read").disabled = status !== "live";
}

/** @param {number} unread */
function badge(unread) {
  const found = element("badge");
  found.hidden = !unread;
  found.textContent = unread > 99 ? "99+" : String(unread);
  found.setAttribute("aria-label", `${unread} unread`);
}

function leave() {
  client?.disconnect();
  client = null;
  badge(0);
}

element("disconnect").addEventListener("click", leave);
element("read").addEventListener("click", () => {
  client?.inbox.read("all").catch(() => line(list, "not marked: try again", "signal"));
});
