// The own connection as the client of the browser sees it, and what it brings.

import { DualcastClient } from "/client/index.js";
import { words } from "./console-api.js";
import { facts, fill, h, say } from "./console-dom.js";
import { short } from "./console-text.js";

const MOST_EVENTS = 500;
const MOST_CHARACTERS = 2_000;
const MOST_CHANNELS = 20;
const LAGS = 50;
const SIGNALS = ["welcome", "gap", "state", "status", "stage", "migrate", "drain", "bye", "unsubscribed", "auth_expiring", "auth_expired"];

/** Connected as long as somebody is signed in; the newest events are kept whether they are shown or not. */
export class Live {
  /** @type {{at: Date, kind: string, name: string, channel: string, text: string}[]} the newest last */
  #events = [];
  /** The newest event on the page; null: draw all anew. @type {any} */
  #shown = null;
  #paused = false;
  #waiting = 0;
  #filter = "";
  #received = 0;
  #drops = 0;
  /** @type {number[]} ms */
  #lags = [];
  /** @type {Map<string, {sent: number, told: (ms: number) => void}>} own notifications on their way */
  #sent = new Map();
  #drawing = 0;
  /** The tenant, as the server has told it; "": not yet. */
  greeted = "";
  /** @type {(() => void) | null} */
  #draw = null;

  /** @param {string} token @param {import("./console-api.js").Api} api of the same token */
  constructor(token, api) {
    // There is no other token. Whether this one still counts the server knows, not this computer's clock, and 401
    // signs out; a socket may be refused for other reasons (a channel, the page's origin, an operator's command).
    const counts = () => api.get("/v1/connections?limit=1");
    const getToken = async ({ fresh }) => {
      if (fresh) await counts();
      return token;
    };
    this.client = new DualcastClient({ getToken, storage: null, app: "console" });
    this.client.on("publication", (publication) => this.#publication(publication));
    for (const name of SIGNALS) {
      this.client.on(name, ({ type: _, backfill: __, channel = "", ...rest }) => this.#note("signal", name, channel, JSON.stringify(rest)));
    }
    this.client.on("welcome", ({ tenant }) => (this.greeted = tenant));
    this.client.on("badge", () => this.#later()); // who listens is told
    let before = "off";
    this.client.on("connection", ({ status, transport, stopped }) => {
      if (before === "live" && status !== "live" && status !== "off") this.#drops += 1;
      if (before !== status) this.#note("signal", status, "", transport ?? (stopped ? `${stopped.code} ${stopped.reason}` : ""));
      if (before !== status && stopped) void counts().catch(() => {});
      before = status;
      this.#later();
    });
  }

  start() {
    this.client.connect();
  }

  stop() {
    this.client.disconnect();
    this.#draw = null;
  }

  #publication({ id, event, channel, data, time, recovered }) {
    this.#received += 1;
    const now = Date.now();
    const lag = now - Date.parse(time);
    if (!recovered && Number.isFinite(lag)) {
      this.#lags.push(lag);
      if (this.#lags.length > LAGS) this.#lags.shift();
    }
    this.#note("publication", event, channel, typeof data?.title === "string" ? data.title : (JSON.stringify(data) ?? ""));
    const own = this.#sent.get(id);
    this.#sent.delete(id);
    own?.told(performance.now() - own.sent);
  }

  #note(kind, name, channel, text) {
    this.#events.push({ at: new Date(), kind, name: String(name), channel, text: short(text, MOST_CHARACTERS) });
    if (this.#events.length > MOST_EVENTS) this.#events.shift();
    if (this.#paused) this.#waiting += 1;
    this.#later();
  }

  /** Draws once per frame, however much comes; not at all while the page is hidden. */
  #later() {
    this.#drawing ||= requestAnimationFrame(() => {
      this.#drawing = 0;
      this.#draw?.();
    });
  }

  /** @param {HTMLElement} body @param {import("./console.js").Context} context @returns {string} the title */
  show(body, context) {
    const lamp = h("p", { class: "light", role: "status" });
    const again = h("button", { type: "button", hidden: true, onclick: () => this.client.connect() }, "Connect again");
    const status = h("div");
    const list = h("ol", { class: "log", role: "log", "aria-live": "off", "aria-label": "Events, the newest first", tabindex: 0, reversed: true });
    const count = h("p", { class: "hint", id: "shown" });
    const pause = h("button", { type: "button", onclick: () => this.#pause(pause) }, this.#paused ? "Go on" : "Pause");
    const filter = h("input", {
      id: "filter", type: "search", value: this.#filter, maxlength: 200,
      oninput: () => {
        this.#filter = filter.value;
        this.#shown = null;
        this.#later();
      },
    });
    const clear = h("button", { type: "button", onclick: () => this.#clear() }, "Clear");
    this.#shown = null;
    let told = "";

    const draw = () => {
      const { name, kind, ...now } = this.#status();
      if (lamp.textContent !== name) lamp.textContent = name;
      again.hidden = !this.client.status.stopped;
      lamp.className = `light ${kind}`;
      const text = JSON.stringify(now);
      if (text !== told) fill(status, facts(Object.entries(now)));
      told = text;
      if (!this.#paused || this.#shown === null) {
        const wanted = this.#filter.toLowerCase();
        const found = this.#events.filter((one) => `${one.name} ${one.channel} ${one.text}`.toLowerCase().includes(wanted));
        if (this.#shown === null) list.replaceChildren();
        const from = this.#shown ? found.indexOf(this.#shown) : -1;
        if (this.#shown && from < 0) list.replaceChildren(); // it is no longer among the newest
        for (const one of found.slice(from + 1)) list.prepend(line(one));
        while (list.children.length > found.length) list.lastChild?.remove();
        this.#shown = found.at(-1) ?? null;
        fill(count, found.length === this.#events.length ? `${found.length} events` : `${found.length} of ${this.#events.length} events`, ` (the newest ${MOST_EVENTS} are kept)`);
      }
      if (this.#paused) fill(count, `Paused: ${this.#waiting} newer`);
    };

    fill(
      body,
      h("div", { class: "panel" }, lamp, again, status),
      this.#test(context),
      this.#channels(context),
      h(
        "section",
        { class: "panel", "aria-labelledby": "events" },
        h("h3", { id: "events" }, "Events"),
        h("div", { class: "row" }, h("label", { for: "filter" }, "Filter "), filter, pause, clear),
        count,
        list,
      ),
    );
    this.#draw = draw;
    draw();
    context.leaving(() => (this.#draw = null));
    context.every(1, draw);
    return "Live";
  }

  #status() {
    const { status, transport, stage, stopped } = this.client.status;
    const lags = [...this.#lags].sort((a, b) => a - b);
    return {
      name: stopped ? `stopped: ${stopped.reason} (${stopped.code})` : status,
      kind: status === "live" ? "good" : stopped || status === "off" ? "bad" : "so-so",
      Transport: transport ?? "none",
      Stage: stage || "not told yet",
      Reconnects: this.#drops,
      "Publications received": this.#received,
      "Lag (median, by this computer’s clock)": lags.length ? `${lags[lags.length >> 1]} ms of ${lags.length}` : "nothing yet",
      Unread: this.client.badge?.unread ?? "–",
    };
  }

  #pause(button) {
    this.#paused = !this.#paused;
    this.#waiting = 0;
    button.textContent = this.#paused ? "Go on" : "Pause";
    say(this.#paused ? "Paused" : "Going on");
    this.#later();
  }

  #clear() {
    this.#events = [];
    this.#shown = null;
    this.#waiting = 0;
    this.#later();
  }

  /** A notification to oneself, there and back. @param {import("./console.js").Context} context */
  #test({ api, me }) {
    const title = h("input", { id: "title", value: "A test from the console", maxlength: 200, required: true });
    const told = h("output", { class: "hint", for: "title" });
    const submit = async (/** @type {Event} */ event) => {
      event.preventDefault();
      const id = `console-${crypto.getRandomValues(new Uint32Array(2)).join("-")}`;
      const sent = performance.now();
      told.textContent = "Sending…";
      if (this.#sent.size >= 20) this.#sent.clear();
      this.#sent.set(id, { sent, told: (ms) => (told.textContent = `Arrived after ${Math.round(ms)} ms, there and back.`) });
      try {
        await api.send("POST", "/v1/notifications", { id, to: { user: me.user }, title: title.value });
        if (this.#sent.has(id)) told.textContent = "Accepted; it has not arrived here yet.";
      } catch (error) {
        this.#sent.delete(id);
        told.textContent = words(error);
      }
    };
    return h(
      "form",
      { class: "panel", onsubmit: submit },
      h("h3", null, "Send yourself a notification"),
      h("div", { class: "row" }, h("label", { for: "title" }, "Title "), title, h("button", null, "Send")),
      told,
    );
  }

  /** @param {import("./console.js").Context} context */
  #channels(context) {
    const field = h("input", { id: "channel", maxlength: 256, placeholder: "topic:news", autocapitalize: "off", spellcheck: "false", required: true });
    const list = h("ul", { class: "chips" });
    const told = h("output", { class: "hint", for: "channel" });
    const draw = () =>
      fill(list, this.client.channels.map((channel) =>
        h("li", null, channel, " ", h("button", { type: "button", "aria-label": `Leave ${channel}`, onclick: () => act(this.client.unsubscribe(channel)) }, "×"))));
    const act = async (/** @type {Promise<unknown>} */ doing) => {
      told.textContent = "";
      try {
        await doing;
      } catch (error) {
        told.textContent = error?.code ? `The server refused it: ${error.code}` : words(error);
      }
      draw();
    };
    const submit = (/** @type {Event} */ event) => {
      event.preventDefault();
      if (this.client.channels.length >= MOST_CHANNELS) return void (told.textContent = `At most ${MOST_CHANNELS} channels here.`);
      const channel = field.value.trim();
      field.value = "";
      void act(this.client.subscribe(channel));
    };
    const off = this.client.on("unsubscribed", ({ channels }) => {
      told.textContent = `The server took away ${channels.join(", ")}`;
      draw();
    });
    context.leaving(off);
    draw();
    return h(
      "form",
      { class: "panel", onsubmit: submit },
      h("h3", null, "Listen to more channels"),
      h("div", { class: "row" }, h("label", { for: "channel" }, "Channel "), field, h("button", null, "Listen")),
      list,
      told,
    );
  }
}

/** @param {{at: Date, kind: string, name: string, channel: string, text: string}} one */
function line({ at, kind, name, channel, text }) {
  return h("li", { class: kind }, h("time", { datetime: at.toISOString() }, at.toLocaleTimeString()), h("b", null, name), channel && h("code", null, channel), h("span", null, text));
}
