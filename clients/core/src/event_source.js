import { CLOSE, SIGNALS } from "./codes.js";
import { Cursor } from "./cursor.js";
import { safely } from "./emitter.js";
import { CLOCK, Engine } from "./engine.js";
import { drivers } from "./options.js";
import { watchPage } from "./page.js";
import { request } from "./requests.js";
import { Rest } from "./rest.js";
import { Seen } from "./seen.js";
import { isOpen, isUp } from "./states.js";
import { TIMING } from "./timing.js";
import { Token } from "./token.js";
import { locate } from "./views.js";

const CONNECTING = 0;
const OPEN = 1;
const CLOSED = 2;
/** Of a socket's publication: what a stream has not. */
const HEAD = /^\{"type":"[a-z_]+",?(?:"cursor":"[^"]*",|"recovered":true,)*/;
/** Publications the stream may be behind the socket in stage `shadow`; beyond it nobody waits for it. */
const APART = 1_000;

/**
 * `EventSource` (WHATWG HTML section 9.2) that speaks WebSocket or SSE underneath, as the tenant's stage says: the
 * same events with the same text, whichever carried them, each once. It knows dualcast's `/v1/stream` and the
 * streams `/api/notifications/stream`, `/api/stream/tasks/{id}` and `/api/stream/batches/{id}` of older pages, under
 * any path; a stream of anybody else is read as what it is.
 *
 * A WebSocket needs a token of its own: `token` in the URL, a cookie, or `getToken`. With only a `ticket` in the
 * URL it stays on SSE.
 */
export class DualcastEventSource extends EventTarget {
  #state = CONNECTING;
  #origin;
  #options;
  #drivers;
  #token;
  #given;
  /** @type {import("./views.js").Place | null} */
  #place;
  #names = new Set();
  #seen = new Seen();
  #last = "";
  /** It was open once. */
  #proven = false;
  /** @type {{event: string, data: string}[]} what a view says first */
  #greeting = [];
  /** @type {Map<any, [import("./engine.js").Frame, string]>} in stage `shadow`: what only the socket has brought; publications by id, gaps by themselves */
  #apart = new Map();
  /** @type {Record<string, {listener: ((event: any) => void) | null, call: (event: Event) => void}>} */
  #handlers = {};
  #cursor = new Cursor();
  /** @type {import("./engine.js").Owner["metric"]} */
  #metric = (...metric) => safely(() => this.#options.metrics?.(...metric));
  /** @type {Engine} */
  #engine;
  #leave;

  /**
   * @param {string | URL} url
   * @param {Omit<import("./options.js").Options, "url" | "channels" | "share">} [options] beside `withCredentials`, which is all an
   *   `EventSource` takes
   */
  constructor(url, options = {}) {
    super();
    let parsed;
    try {
      parsed = new URL(url, globalThis.document?.baseURI ?? globalThis.location?.href);
    } catch {
      throw new DOMException(`Cannot open an EventSource to '${url}'`, "SyntaxError");
    }
    /** @readonly */ this.url = parsed.href;
    /** @readonly */ this.withCredentials = Boolean(options.withCredentials);
    this.#origin = parsed.origin;
    this.#options = options;
    this.#place = locate(parsed);
    this.#token = new Token(options.getToken);
    const ask = options.fetch ?? globalThis.fetch;
    this.#drivers = drivers({
      ...options,
      fetch: async (given, init) => {
        const answer = await ask(given, init);
        if (!this.#place && answer.url) this.#origin = new URL(answer.url).origin; // it may have been redirected
        return answer;
      },
    });
    const query = parsed.searchParams;
    if (query.has("ticket") && !options.getToken) Object.assign(this.#drivers, { ws: undefined, unopened: "chosen" });
    const view = this.#place?.view;
    // Of an older path's parameters only who is calling means something.
    const own = [...query].filter(([name]) => name === "token" || (name === "ticket" && !options.getToken));
    this.#given = view ? new URLSearchParams([["view", view], ...own]) : query;
    this.#engine = this.#start();
    this.#leave = watchPage((type) => this.#engine.dispatch({ type }), () => {});
    this.#engine.dispatch({ type: "connect" });
  }

  #start() {
    const { withCredentials } = this;
    const place = this.#place;
    const options = this.#options;
    const token = this.#token;
    const found = { ...this.#drivers };
    const stream = found.sse;
    const socket = found.ws;
    /** @param {import("./transports/port.js").Ended} end */
    const isExpired = (end) => end.code === CLOSE.TOKEN_EXPIRED;
    /** @param {import("./transports/port.js").Ended} end a 5xx is that of a proxy whose server is away: over a WebSocket nobody can tell */
    const isPassing = (end) => (this.#proven && (end.status ?? 0) >= 500) || (isExpired(end) && options.getToken);
    if (place && stream) {
      found.sse = (asked, on) => stream(asked, { ...on, closed: (end) => on.closed({ ...end, refused: end.refused && !isPassing(end) }) });
    }
    /** An expired token that nobody renews is the end, as it is over a stream. @param {import("./transports/port.js").Ended} end */
    const final = (end) => isExpired(end) && !options.getToken && !isUp(this.#engine.state.ws);
    found.ws =
      place && socket
        ? (asked, on) => socket(asked, { ...on, closed: (end) => on.closed(final(end) ? { ...end, code: CLOSE.UNAUTHORIZED } : end) })
        : undefined;
    const base = place?.base ?? "";
    const asking = {
      base,
      token,
      rest: new Rest(base, token, found.fetcher, withCredentials),
      options,
      drivers: found,
      instance: this.#given.get("instance") ?? options.instance ?? Math.random().toString(36).slice(2),
      channels: () => [],
      events: place?.view ? ["publication"] : this.#names,
      cursor: () => this.#cursor.newest,
      given: this.#given,
    };
    /** @type {import("./engine.js").Owner["request"]} */
    const foreign = async () => ({
      url: this.url.replace(/#.*/, ""),
      lastEventId: this.#last,
      credentials: withCredentials,
      events: this.#names,
    });
    /** @type {Engine} */
    const engine = new Engine(
      {
        request: place ? (link, fresh, reason) => request(asking, link, fresh, reason) : foreign,
        frame: (frame, link, text) => this.#frame(frame, link, text),
        raw: place ? undefined : (event) => this.#fire(event.type, event.data, event.id),
        token,
        changed: (state, before) => engine === this.#engine && this.#changed(state, before),
        remember: () => {},
        metric: this.#metric,
      },
      found,
      { strict: true, timing: { ...TIMING, ...options.timing } },
      options.clock ?? CLOCK,
    );
    return engine;
  }

  /** 0: connecting, 1: open, 2: closed. */
  get readyState() {
    return this.#state;
  }

  /** What carries events now. @returns {"websocket" | "sse" | null} */
  get transport() {
    const { ws, sse } = this.#engine.state;
    return isUp(ws) ? "websocket" : isUp(sse) ? "sse" : null;
  }

  /** Ends it; no event is told any more. */
  close() {
    this.#state = CLOSED;
    this.#leave();
    this.#engine.dispatch({ type: "disconnect" });
  }

  /** @override @param {string} type @param {any} listener @param {any} [options] */
  addEventListener(type, listener, options) {
    super.addEventListener(type, listener, options);
    this.#names.add(String(type));
    this.#engine?.listen(String(type));
  }

  /** @param {import("./states.js").State} state @param {import("./states.js").State} before */
  #changed(state, before) {
    if (this.#state === CLOSED) return;
    if (!this.#place && state.sse.state === "greeting") {
      const frame = { type: "welcome", heartbeat_s: 2_000_000 }; // any stream: silence says nothing
      return this.#engine.dispatch({ type: "frame", link: "sse", gen: state.sse.gen, frame });
    }
    if (this.#apart.size && (!isUp(state.sse) || state.stage !== "shadow")) this.#together();
    const up = isUp(state.ws) || isUp(state.sse);
    /** @param {import("./states.js").Name} one */
    const broken = (one) => isOpen(before[one]) && !isOpen(state[one]);
    // A WebSocket that does not open is nothing to the page while a stream may: many a page closes at its first error.
    const broke = broken("sse") || (broken("ws") && (this.#state === OPEN || !state.has.sse || state.gone));
    if (state.stopped) {
      if (this.#place?.view && !this.#proven && state.has.sse) return this.#plain(state.stopped.reason);
      this.close();
      this.dispatchEvent(new Event("error"));
    } else if (up && this.#state === CONNECTING) {
      this.#state = OPEN;
      this.#proven = true;
      this.dispatchEvent(new Event("open"));
      for (const { event, data } of this.#greeting) this.#fire(event, data, this.#last);
    } else if (!up && broke) {
      this.#state = CONNECTING;
      this.dispatchEvent(new Event("error"));
    }
  }

  /** A server without this view has the stream itself, or says by that why not. @param {string} reason */
  #plain(reason) {
    this.#metric("no_view", 1, { reason });
    this.#place = null;
    this.#engine = this.#start();
    this.#engine.dispatch({ type: "connect" });
  }

  /** @param {import("./engine.js").Frame} frame @param {"ws" | "sse"} link @param {string} text */
  #frame(frame, link, text) {
    const { events, id, type } = frame;
    const { sse, stage } = this.#engine.state;
    const besides = link === "ws" && isUp(sse);
    const publication = id && (events || type === "publication");
    if (stage === "shadow") {
      // The stream is the truth. What comes by the socket first is kept until the stream has it, or ends.
      if (besides) {
        if (publication ? !this.#seen.has(id) : type === "gap") this.#apart.set(id ?? frame, [frame, text]);
        if (this.#apart.size > APART) this.#together();
        return;
      }
      this.#passed(id);
    }
    this.#tell(frame, link, text, besides);
  }

  /** @param {import("./engine.js").Frame} frame @param {"ws" | "sse"} link @param {string} text @param {boolean} besides */
  #tell(frame, link, text, besides) {
    const { id, type, cursor } = frame;
    if (this.#place?.view) this.#viewed(frame, besides);
    else if (type === "bye" && frame.channels) return; // a refusal, of which a stream has no event
    else if (type === "publication" ? this.#seen.add(id) : SIGNALS.includes(type) && !besides) {
      const publication = type === "publication";
      if (cursor && (publication || link === "sse")) this.#last = cursor;
      const data = link === "ws" ? "{" + text.replace(HEAD, "") : text;
      this.#fire(publication ? frame.event : type, data, this.#last);
    }
    if (this.#cursor.take(cursor) && !this.#place?.view) this.#last = cursor;
  }

  /** A frame of a view: its events as they came. @param {import("./engine.js").Frame} frame @param {boolean} besides */
  #viewed({ type, view, told, events, id, cursor, reason }, besides) {
    if (view) this.#greeting = view;
    if (told) this.#given.set("told", told);
    if (type === "gap") this.#metric("gaps", 1, { reason });
    if (!events || (id ? !this.#seen.add(id) : besides)) return;
    // As on the stream itself: the last event of a publication has the id.
    for (const one of events) this.#fire(one.event, one.data, (one === events.at(-1) && cursor) || this.#last);
  }

  /** The stream has brought this one, and so all that stands before it in the log. @param {string} id */
  #passed(id) {
    if (!this.#apart.has(id)) return;
    for (const key of this.#apart.keys()) {
      this.#apart.delete(key);
      if (key === id) return;
    }
  }

  /** The stream is gone, or no longer the truth: what only the socket has brought is told now. */
  #together() {
    const left = [...this.#apart.values()];
    this.#apart.clear();
    for (const [frame, text] of left) this.#tell(frame, "ws", text, false);
  }

  /** @param {string} type @param {string} data @param {string} lastEventId */
  #fire(type, data, lastEventId) {
    this.#last = lastEventId;
    if (this.#state === CLOSED) return;
    this.dispatchEvent(new MessageEvent(type, { data, lastEventId, origin: this.#origin }));
  }

  /** @param {string} type */
  #handler(type) {
    return this.#handlers[type]?.listener ?? null;
  }

  /**
   * An event handler attribute, with its place among the listeners.
   * @param {string} type @param {unknown} listener
   */
  #handle(type, listener) {
    const now = typeof listener === "function" ? /** @type {(event: any) => void} */ (listener) : null;
    const found = this.#handlers[type];
    if (found && now) found.listener = now;
    else if (found) {
      this.removeEventListener(type, found.call);
      delete this.#handlers[type];
    } else if (now) {
      /** @param {Event} event */
      const call = (event) => this.#handlers[type]?.listener?.call(this, event);
      this.#handlers[type] = { listener: now, call };
      this.addEventListener(type, call);
    }
  }

  get onopen() {
    return this.#handler("open");
  }
  set onopen(listener) {
    this.#handle("open", listener);
  }
  get onmessage() {
    return this.#handler("message");
  }
  set onmessage(listener) {
    this.#handle("message", listener);
  }
  get onerror() {
    return this.#handler("error");
  }
  set onerror(listener) {
    this.#handle("error", listener);
  }

  // As on `EventSource` (below also on instances): constants nobody changes.
  /** @readonly @type {0} */ static CONNECTING;
  /** @readonly @type {1} */ static OPEN;
  /** @readonly @type {2} */ static CLOSED;
}

for (const target of [DualcastEventSource, DualcastEventSource.prototype]) {
  for (const [name, value] of Object.entries({ CONNECTING, OPEN, CLOSED })) {
    Object.defineProperty(target, name, { value, enumerable: true, writable: false, configurable: false });
  }
}
