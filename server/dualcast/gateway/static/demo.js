// The try-out page: one user on both transports, a client for each. It can be read as an example.

import { DualcastClient } from "/client/index.js";

const token = new URLSearchParams(location.hash.slice(1)).get("token") ?? "";
const SIGNALS = ["gap", "status", "stage", "migrate", "drain", "auth_expiring", "auth_expired", "bye"];
const LIGHTS = { live: "open", connecting: "connecting", waiting: "connecting" };
const LINES = 200;
const panes = [];

/** One column of the page: a client that has one transport only. */
class Pane {
  /** Publications by id. */
  received = new Map();
  wanted = true;
  #root;

  /** @param {string} id of the column @param {"eventsource" | "websocket"} transport */
  constructor(id, transport) {
    this.#root = document.getElementById(id);
    // Nothing is stored, so that a reload begins with an empty column; and it does not wait long for a server
    // that is being started again in front of somebody's eyes.
    this.client = new DualcastClient({ getToken: () => token, transports: [transport], storage: null, timing: { cap: 3_000 } });
    this.client.on("connection", (status) => this.#connection(status));
    this.client.on("publication", (publication) => this.#publication(publication));
    this.client.on("welcome", ({ cursor }) => this.#moved(cursor));
    this.client.on("badge", ({ unread }) => this.#badge(unread));
    for (const name of SIGNALS) {
      this.client.on(name, ({ type: _, backfill: __, ...facts }) => this.#line(`${name} ${JSON.stringify(facts)}`, null, "signal"));
    }
    this.#find(".toggle").addEventListener("click", () => this.#toggle());
    this.#find(".read").addEventListener("click", () => this.client.inbox.read("all").catch((error) => this.#line(error.message, null, "signal")));
  }

  #find(selector) {
    return this.#root.querySelector(selector);
  }

  #connection({ status, stopped }) {
    const light = LIGHTS[status] ?? "closed";
    const before = this.#root.dataset.state;
    this.#root.dataset.state = this.#find(".light").dataset.state = this.#find(".state").textContent = light;
    if (before === "open" && light === "connecting") this.#line("disconnected", null, "signal");
    if (stopped) this.#line(`stopped: ${stopped.code} ${stopped.reason}`, null, "signal");
  }

  #publication({ id, event, data, time, cursor }) {
    this.#moved(cursor);
    if (event === "inbox") return;
    this.received.set(id, event);
    this.#find(".count").textContent = String(this.received.size);
    this.#line(`${event}: ${data?.title ?? JSON.stringify(data)}`, time);
    compare();
  }

  #moved(cursor) {
    if (cursor) this.#find(".cursor").textContent = cursor;
  }

  #badge(unread) {
    this.#find(".badge").textContent = String(unread);
    this.#find(".badge").hidden = unread === 0;
  }

  #line(text, when, kind = "") {
    const item = document.createElement("li");
    item.className = kind;
    const time = document.createElement("time");
    time.textContent = new Date(when ?? Date.now()).toLocaleTimeString();
    item.append(time, text);
    const log = this.#find(".log");
    log.prepend(item);
    while (log.children.length > LINES) log.lastChild.remove();
  }

  #toggle() {
    this.wanted = !this.wanted;
    this.#find(".toggle").textContent = this.wanted ? "Disconnect" : "Connect";
    if (this.wanted) this.client.connect();
    else this.client.disconnect();
  }
}

function compare() {
  const [sse, ws] = panes.map((pane) => pane.received);
  const missing = (from, to) => [...from.keys()].filter((id) => !to.has(id)).length;
  const [later, sooner] = [missing(sse, ws), missing(ws, sse)];
  document.getElementById("compare").textContent =
    later + sooner === 0 ? "Both transports have received the same." : `Still on its way: ${sooner} on SSE, ${later} on WebSocket.`;
}

/** Publishes over REST; the cursor it got. @param {object} body */
async function publish(body) {
  const headers = { authorization: `Bearer ${token}`, "content-type": "application/json" };
  const answer = await fetch("/v1/notifications", { method: "POST", headers, body: JSON.stringify(body) });
  const result = await answer.json();
  if (!answer.ok) throw new Error(`${result.code}: ${result.detail}`);
  return result.cursor;
}

const sent = document.getElementById("sent");
const user = document.getElementById("user");
document.getElementById("send").addEventListener("submit", async (event) => {
  event.preventDefault();
  try {
    const cursor = await publish({ to: { user: user.value }, title: document.getElementById("title").value });
    sent.textContent = `accepted as ${cursor}`;
  } catch (error) {
    sent.textContent = error instanceof TypeError ? "the server cannot be reached" : error.message;
  }
});

addEventListener("hashchange", () => location.reload()); // another token
panes.push(new Pane("sse", "eventsource"), new Pane("ws", "websocket"));
if (token) {
  panes[1].client.on("welcome", ({ user: known }) => (user.value ||= known));
  for (const pane of panes) pane.client.connect();
} else sent.textContent = "Open this page with #token=… in its address (dualcast serve --dev prints it).";
