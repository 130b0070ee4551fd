// The try-out page: one user on both transports. Plain browser APIs, so that it can be read as an example.

const token = new URLSearchParams(location.hash.slice(1)).get("token") ?? "";
const claims = readClaims(token);
const received = { sse: new Map(), ws: new Map() };

/** The claims of a JWT, unverified: only to show whose notifications these are. */
function readClaims(text) {
  try {
    const part = text.split(".")[1].replaceAll("-", "+").replaceAll("_", "/");
    return JSON.parse(new TextDecoder().decode(Uint8Array.from(atob(part), (c) => c.charCodeAt(0))));
  } catch {
    return {};
  }
}

/** A REST call with the token; the answer's JSON. */
async function call(method, path, body) {
  const headers = { authorization: `Bearer ${token}`, "content-type": "application/json" };
  const answer = await fetch(path, { method, headers, body: body && JSON.stringify(body) });
  const result = await answer.json();
  if (!answer.ok) throw new Error(`${result.code}: ${result.detail}`);
  return result;
}

/** A ticket in place of the token, so that no token stands in a URL. `transport`: `sse` or `websocket`. */
async function ticket(transport) {
  return (await call("POST", "/v1/tickets", { transport })).ticket;
}

/** One column of the page. */
class Pane {
  constructor(id, start) {
    this.root = document.getElementById(id);
    this.id = id;
    this.start = start;
    this.cursor = null;
    this.wanted = true;
    this.attempts = 0;
    this.timer = 0;
    this.unread = 0;
    this.revision = [0, 0];
    this.root.querySelector(".toggle").addEventListener("click", () => this.toggle());
    this.root.querySelector(".read").addEventListener("click", () => this.readAll());
  }

  state(name) {
    const light = this.root.querySelector(".light");
    light.dataset.state = name;
    this.root.querySelector(".state").textContent = name;
    this.root.dataset.state = name;
    if (name === "open") this.attempts = 0;
  }

  moved(cursor) {
    if (!cursor) return;
    this.cursor = cursor;
    this.root.querySelector(".cursor").textContent = cursor;
  }

  /** Takes the counters of a frame, an answer or an `inbox` event; older ones than those shown are left. */
  counted(inbox) {
    if (!inbox) return;
    if (inbox.tenant_revision !== undefined) {
      // To everybody: no counters of mine are in it. Next to what I have, it is one more; otherwise ask.
      if (inbox.tenant_revision === this.revision[1] + 1) {
        this.revision[1] += 1;
        this.unread += 1;
      } else if (inbox.tenant_revision > this.revision[1]) this.ask?.();
    } else if (inbox.revision[0] >= this.revision[0] && inbox.revision[1] >= this.revision[1]) {
      this.revision = [...inbox.revision];
      this.unread = inbox.unread;
    }
    const badge = this.root.querySelector(".badge");
    badge.textContent = String(this.unread);
    badge.hidden = this.unread === 0;
  }

  publication(publication, cursor) {
    this.moved(cursor);
    this.counted(publication.event === "inbox" ? publication.data : publication.inbox);
    if (publication.event === "inbox") return;
    const seen = received[this.id];
    if (seen.has(publication.id)) return; // delivery is at least once: equal ids are one publication
    seen.set(publication.id, publication);
    this.root.querySelector(".count").textContent = String(seen.size);
    const title = publication.data?.title ?? JSON.stringify(publication.data);
    this.line(`${publication.event}: ${title}`, publication.time);
    compare();
  }

  signal(name, text = "") {
    this.line(`${name} ${text}`.trim(), null, "signal");
  }

  line(text, when, kind = "") {
    const item = document.createElement("li");
    item.className = kind;
    const time = document.createElement("time");
    time.textContent = new Date(when ?? Date.now()).toLocaleTimeString();
    item.append(time, text);
    const log = this.root.querySelector(".log");
    log.prepend(item);
    while (log.children.length > 200) log.lastChild.remove();
  }

  toggle() {
    this.wanted = !this.wanted;
    this.root.querySelector(".toggle").textContent = this.wanted ? "Disconnect" : "Connect";
    clearTimeout(this.timer);
    if (this.wanted) this.connect();
    else {
      this.stop?.();
      this.state("closed");
    }
  }

  async connect() {
    this.state("connecting");
    try {
      await this.start(this);
    } catch (error) {
      this.again(error.message);
    }
  }

  /** Connects again after `delay` ms, or with full jitter that grows with the attempts. */
  again(why, delay) {
    if (!this.wanted) return;
    this.state("connecting");
    if (this.attempts++ === 0) this.signal("disconnected", why);
    const wait = delay ?? Math.random() * Math.min(500 * 2 ** this.attempts, 5000) + 200;
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.connect(), wait);
  }
}

const SIGNALS = ["gap", "status", "stage", "migrate", "drain", "auth_expiring", "auth_expired", "bye"];

const inboxOf = (user) => `/v1/users/${encodeURIComponent(user)}`;

async function eventSource(pane) {
  // A stream only listens: what it has to ask goes over REST.
  pane.ask = async () => pane.counted(await call("GET", `${inboxOf(claims.sub)}/unread-count`));
  pane.readAll = () => call("POST", `${inboxOf(claims.sub)}/notifications/read`, { all: true });

  const query = new URLSearchParams({ ticket: await ticket("sse") });
  if (pane.cursor) query.set("cursor", pane.cursor);
  const source = new EventSource(`/v1/stream?${query}`);
  pane.stop = () => source.close();
  source.addEventListener("welcome", (event) => {
    pane.state("open");
    pane.moved(event.lastEventId);
    pane.ask();
  });
  for (const name of ["notification", "inbox"]) {
    source.addEventListener(name, (event) => pane.publication(JSON.parse(event.data), event.lastEventId));
  }
  for (const name of SIGNALS) {
    source.addEventListener(name, (event) => {
      if (event.data) pane.signal(name, event.data);
      pane.moved(event.lastEventId);
    });
  }
  source.onerror = () => {
    // The browser comes back by itself with Last-Event-ID; only a final answer (a ticket that ended) needs us.
    if (source.readyState === EventSource.CLOSED) pane.again("the stream was refused");
    else {
      pane.state("connecting");
      if (pane.attempts++ === 0) pane.signal("disconnected", "the browser reconnects");
    }
  };
}

async function webSocket(pane) {
  const query = new URLSearchParams({ ticket: await ticket("websocket") });
  if (pane.cursor) query.set("cursor", pane.cursor);
  const scheme = location.protocol === "https:" ? "wss" : "ws";
  const socket = new WebSocket(`${scheme}://${location.host}/v1/socket?${query}`);
  let delay;
  pane.stop = () => socket.close();
  pane.ask = () => socket.send('{"type":"counters"}');
  pane.readAll = () => socket.send('{"type":"read","all":true}');
  socket.onmessage = (event) => {
    const frame = JSON.parse(event.data);
    if (frame.type === "publication") pane.publication(frame, frame.cursor);
    else if (frame.type === "welcome") {
      pane.state("open");
      pane.moved(frame.cursor);
      pane.ask();
    } else if (frame.type === "inbox_counters" || frame.type === "marked") pane.counted(frame.inbox);
    else {
      if (frame.type === "bye") delay = frame.retry_ms;
      pane.signal(frame.type, event.data);
      pane.moved(frame.cursor);
    }
  };
  socket.onclose = (event) => {
    if (event.code >= 4000 && event.code < 4100) {
      pane.state("closed");
      pane.signal("stopped", `${event.code} ${event.reason}`);
    } else pane.again(`code ${event.code} ${event.reason}`, delay);
  };
}

function compare() {
  const missing = (from, to) => [...from.keys()].filter((id) => !to.has(id)).length;
  const text = [missing(received.sse, received.ws), missing(received.ws, received.sse)];
  document.getElementById("compare").textContent =
    text[0] + text[1] === 0 ? "Both transports have received the same." : `Still on its way: ${text[1]} on SSE, ${text[0]} on WebSocket.`;
}

document.getElementById("user").value = claims.sub ?? "";
document.getElementById("send").addEventListener("submit", async (event) => {
  event.preventDefault();
  const sent = document.getElementById("sent");
  try {
    const made = await call("POST", "/v1/notifications", {
      to: { user: document.getElementById("user").value },
      title: document.getElementById("title").value,
    });
    sent.textContent = `accepted as ${made.cursor}`;
  } catch (error) {
    sent.textContent = error instanceof TypeError ? "the server cannot be reached" : error.message;
  }
});

addEventListener("hashchange", () => location.reload()); // another token
const panes = { sse: new Pane("sse", eventSource), ws: new Pane("ws", webSocket) };
if (token) {
  panes.sse.connect();
  panes.ws.connect();
} else document.getElementById("sent").textContent = "Open this page with #token=… in its address (dualcast serve --dev prints it).";
