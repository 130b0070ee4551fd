import { SIGNALS } from "./codes.js";
import { Cursor } from "./cursor.js";
import { CLOCK, Engine } from "./engine.js";
import { baseOf, drivers } from "./options.js";
import { watchPage } from "./page.js";
import { request } from "./requests.js";
import { Rest } from "./rest.js";
import { Seen } from "./seen.js";
import { isOpen, isUp } from "./states.js";
import { TIMING } from "./timing.js";
import { Token } from "./token.js";

const PATH = "/v1/stream";
const CONNECTING = 0;
const OPEN = 1;
const CLOSED = 2;
/** Of a socket's publication: what a stream has not. */
const HEAD = /^\{"type":"[a-z_]+",?(?:"cursor":"[^"]*",|"recovered":true,)*/;

/**
 * `EventSource` (WHATWG HTML section 9.2) that speaks WebSocket or SSE underneath, as the tenant's stage says: the
 * same events with the same text, whichever carried them, each once. A URL that is not dualcast's `/v1/stream`
 * is read as a plain event stream.
 *
 * A WebSocket needs a token of its own: `token` in the URL, a cookie, or `getToken`. With only a `ticket` in the
 * URL it stays on SSE.
 */
export class DualcastEventSource extends EventTarget {
  #state = CONNECTING;
  #origin;
  #names = new Set();
  #seen = new Seen();
  #last = "";
  /** @type {Record<string, {listener: ((event: any) => void) | null, call: (event: Event) => void}>} */
  #handlers = {};
  #cursor = new Cursor();
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

    const native = parsed.pathname.endsWith(PATH);
    const query = parsed.searchParams;
    const found = drivers(options);
    if (!native || (query.has("ticket") && !options.getToken)) {
      Object.assign(found, { ws: undefined, unopened: "chosen" });
    }
    const token = new Token(options.getToken);
    const base = native ? baseOf(parsed.href.replace(/[?#].*/, "").slice(0, -PATH.length)) : "";
    const rest = new Rest(base, token, found.fetcher, this.withCredentials);
    const instance = query.get("instance") ?? options.instance ?? Math.random().toString(36).slice(2);

    /** @type {import("./engine.js").Owner["request"]} */
    const foreign = async () => ({
      url: this.url.replace(/#.*/, ""),
      lastEventId: this.#last,
      credentials: this.withCredentials,
      events: this.#names,
    });
    const asking = {
      base,
      token,
      rest,
      options,
      drivers: found,
      instance,
      channels: () => [],
      events: () => this.#names,
      cursor: () => this.#cursor.newest,
      given: query,
    };
    this.#engine = new Engine(
      {
        request: native ? (link, fresh, reason) => request(asking, link, fresh, reason) : foreign,
        frame: (frame, link, text) => this.#frame(frame, link, text),
        raw: native ? undefined : (event) => this.#fire(event.type, event.data, event.id),
        token,
        changed: (state, before) => this.#changed(state, before, native),
        remember: () => {},
        metric: (name, value, labels) => options.metrics?.(name, value, labels),
      },
      found,
      { strict: true, timing: { ...TIMING, ...options.timing } },
      options.clock ?? CLOCK,
    );
    this.#leave = watchPage((type) => this.#engine.dispatch({ type }), () => {});
    this.#engine.dispatch({ type: "connect" });
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

  /**
   * @param {import("./states.js").State} state @param {import("./states.js").State} before @param {boolean} native
   */
  #changed(state, before, native) {
    if (this.#state === CLOSED) return;
    if (!native && state.sse.state === "greeting") {
      const frame = { type: "welcome", heartbeat_s: 2_000_000 }; // any stream: silence says nothing
      return this.#engine.dispatch({ type: "frame", link: "sse", gen: state.sse.gen, frame });
    }
    const up = isUp(state.ws) || isUp(state.sse);
    /** @param {import("./states.js").Name} one */
    const broken = (one) => isOpen(before[one]) && !isOpen(state[one]);
    // A WebSocket that fails while a stream is being opened in its place is nothing to the page.
    const broke = broken("sse") || (broken("ws") && (this.#state === OPEN || state.sse.state === "idle"));
    if (state.stopped) {
      this.close();
      this.dispatchEvent(new Event("error"));
    } else if (up && this.#state === CONNECTING) {
      this.#state = OPEN;
      this.dispatchEvent(new Event("open"));
    } else if (!up && broke) {
      this.#state = CONNECTING;
      this.dispatchEvent(new Event("error"));
    }
  }

  /** @param {import("./engine.js").Frame} frame @param {"ws" | "sse"} link @param {string} text */
  #frame(frame, link, text) {
    const besides = link === "ws" && isUp(this.#engine.state.sse);
    const publication = frame.type === "publication";
    const shadow = besides && this.#engine.state.stage === "shadow"; // the stream is the truth
    if (shadow && publication) return;
    if (publication ? this.#seen.add(frame.id) : SIGNALS.includes(frame.type) && !besides) {
      if (frame.cursor && (publication || link === "sse")) this.#last = frame.cursor;
      const data = link === "ws" ? "{" + text.replace(HEAD, "") : text;
      this.#fire(publication ? frame.event : frame.type, data, this.#last);
    }
    if (this.#cursor.take(frame.cursor)) this.#last = frame.cursor;
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
