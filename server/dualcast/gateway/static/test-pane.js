// One connection on the page: light, endpoint, what it sends and gets, progress, times.

import { Bars, progressOf } from "./test-bars.js";
import { arrivedAfter } from "./test-stamps.js";

const MAX_LINES = 200;
const MAX_BEATS = 50;
const MAX_SHOWN = 4000;
const PING_EVERY_MS = 15000;
const BEATS = new Set(["ping", "pong", "heartbeat"]);

export class Pane {
  /**
   * `options`: `title`; `line(to)` makes the connection; `endpoints`: `{id, label, url(cursor), one}` each; `examples`:
   * `{label, text()}` each (none: it cannot send); `ping`: `{text(), answers(frame, text)}` or null; `onstate(name)`.
   */
  constructor(options) {
    this.options = options;
    this.root = document.getElementById("pane").content.firstElementChild.cloneNode(true);
    this.find = (selector) => this.root.querySelector(selector);
    this.root.setAttribute("aria-label", options.title);
    this.find(".name").textContent = options.title;
    this.find(".trip").parentElement.hidden = !options.ping;
    this.find(".sent-count").parentElement.hidden = !options.examples;
    this.find(".log").setAttribute("aria-label", `${options.title}: log, newest first`);
    this.bars = new Bars(this.find(".bars"));
    this.counts = { got: 0, sent: 0 };
    this.pinged = 0;
    this.timer = 0;
    for (const endpoint of options.endpoints) this.find(".endpoint").add(new Option(endpoint.label, endpoint.id));
    this.line = options.line({
      state: (name) => this.state(name),
      frame: (text, name) => this.frame(text, name),
      note: (text) => this.write("", text, "signal"),
    });
    this.find(".toggle").addEventListener("click", () => (this.line.wanted ? this.line.close() : this.connect()));
    this.find(".endpoint").addEventListener("change", () => this.line.wanted && this.connect());
    this.find(".clear").addEventListener("click", () => this.clear());
    this.find(".quiet").addEventListener("change", () => this.quiet());
    this.quiet();
    this.examples(options.examples ?? []);
    this.state("closed");
  }

  /** Connects to the chosen endpoint, or to that of `id`. */
  connect(id) {
    const select = this.find(".endpoint");
    if (id) select.value = id;
    const endpoint = this.options.endpoints.find((found) => found.id === select.value);
    this.write("", `connecting: ${endpoint.label}`, "signal");
    this.line.open(endpoint.url);
  }

  /** Moves a connection that watches one task or batch to the first endpoint, and waits until that is decided. */
  async listen() {
    const at = this.options.endpoints.find((found) => found.id === this.find(".endpoint").value);
    if (!this.line.wanted || !at.one) return;
    this.connect(this.options.endpoints[0].id);
    await new Promise((decided) => (this.decided = decided));
  }

  examples(examples) {
    this.find(".say").hidden = examples.length === 0;
    const select = this.find(".examples");
    const field = this.find("textarea");
    for (const [index, example] of examples.entries()) select.add(new Option(example.label, String(index)));
    const fill = () => {
      field.value = examples[Number(select.value)]?.text() ?? "";
    };
    select.addEventListener("change", fill);
    select.addEventListener("focus", () => field.value || fill());
    fill();
    this.find(".say").addEventListener("submit", (event) => {
      event.preventDefault();
      this.say(field.value);
    });
    field.addEventListener("keydown", (event) => {
      if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
      event.preventDefault();
      this.say(field.value);
    });
  }

  say(text) {
    if (!text) return;
    if (this.options.ping?.is(text)) this.pinged = performance.now();
    if (!this.line.send(text)) this.write("", "not sent: there is no open socket", "signal");
    else {
      this.find(".sent-count").textContent = String(++this.counts.sent);
      this.write("↑", text, this.options.ping?.is(text) ? "sent beat" : "sent");
    }
  }

  state(name) {
    this.root.dataset.state = name;
    this.find(".light").dataset.state = name;
    this.find(".state").textContent = name;
    this.find(".toggle").textContent = this.line?.wanted ? "Disconnect" : "Connect";
    clearInterval(this.timer);
    if (name === "open" && this.options.ping) {
      this.timer = setInterval(() => this.ping(), PING_EVERY_MS);
      this.ping();
    }
    if (name !== "connecting") this.decided?.();
    this.options.onstate?.(name);
  }

  ping() {
    this.say(this.options.ping.text());
  }

  frame(text, name) {
    const now = performance.now();
    this.find(".count").textContent = String(++this.counts.got);
    const frame = parsed(text);
    const type = name || frame?.type || "";
    if (this.pinged && this.options.ping?.answers(frame, text)) {
      this.find(".trip").textContent = milliseconds(now - this.pinged);
      this.pinged = 0;
    }
    const delivery = arrivedAfter(text, now);
    if (delivery !== null) this.find(".delivery").textContent = milliseconds(delivery);
    const progress = progressOf(frame, name);
    if (progress) this.bars.show(progress);
    this.write("↓", name ? `${name}: ${text}` : text, BEATS.has(type) || text === "pong" ? "got beat" : "got");
  }

  write(way, text, kind) {
    const item = document.createElement("li");
    item.className = kind;
    const time = document.createElement("time");
    time.textContent = new Date().toLocaleTimeString([], { hourCycle: "h23" });
    const mark = document.createElement("span");
    mark.className = "way";
    mark.textContent = way;
    const shown = document.createElement("span");
    shown.className = "text";
    shown.textContent = text.length > MAX_SHOWN ? `${text.slice(0, MAX_SHOWN)}…` : text;
    item.append(time, mark, shown);
    const log = this.find(".log");
    log.prepend(item);
    // Counted apart: a night of hidden heartbeats must not push out what was there to be seen.
    const beats = log.querySelectorAll(".beat");
    if (beats.length > MAX_BEATS) beats[MAX_BEATS].remove();
    const lines = log.querySelectorAll("li:not(.beat)");
    if (lines.length > MAX_LINES) lines[MAX_LINES].remove();
  }

  quiet() {
    this.root.dataset.quiet = this.find(".quiet").checked ? "on" : "off";
  }

  clear() {
    this.find(".log").replaceChildren();
    this.bars.clear();
  }
}

function parsed(text) {
  try {
    return JSON.parse(text);
  } catch {
    return null;
  }
}

function milliseconds(value) {
  return `${value < 10 ? value.toFixed(1) : Math.round(value)} ms`;
}
