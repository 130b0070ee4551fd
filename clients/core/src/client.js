import { Commands } from "./commands.js";
import { Delivery } from "./delivery.js";
import { Emitter, safely } from "./emitter.js";
import { CLOCK, Engine } from "./engine.js";
import { DualcastError } from "./errors.js";
import { randomId } from "./ids.js";
import { inboxOf } from "./inbox.js";
import { baseOf, drivers } from "./options.js";
import { watchPage } from "./page.js";
import { Position } from "./position.js";
import { request } from "./requests.js";
import { Rest } from "./rest.js";
import { Shadow, isShadowed } from "./shadow.js";
import { NAMES, isOpen, isActive, isUp } from "./states.js";
import { cursorKey, gentle, pageStore, transportKey } from "./storage.js";
import { Timers } from "./timers.js";
import { TIMING } from "./timing.js";
import { Token } from "./token.js";
import { Welcomes } from "./welcomes.js";

/** @typedef {import("./engine.js").Frame} Frame */
/** @typedef {import("./options.js").Options} Options */
/** @typedef {import("./api.js").Status} Status */

/**
 * A live connection to dualcast: WebSocket first, SSE where that does not get through or the tenant's stage says
 * so, one position over both. Does nothing before `connect()`.
 */
export class DualcastClient {
  #own;
  /** @type {string[]} */
  #others = [];
  #events = new Emitter();
  #token;
  #rest;
  #names;
  #shadow = new Shadow();
  #welcomes = new Welcomes();
  /** @type {Frame | null} */
  #greeting = null;
  #leaveAlone = () => {};
  /** @type {import("./engine.js").Owner["metric"]} */
  #metric = (...metric) => safely(() => this.options.metrics?.(...metric));
  /** @type {Status | null} */
  #told = null;
  /** @type {Status | null} of the leader */
  #leader = null;
  #timers;
  #position;
  #delivery;
  #transports;
  #sharing;
  #engine;
  #commands;

  /** @param {Options} [options] */
  constructor(options = {}) {
    this.options = options;
    this.base = baseOf(options.url);
    this.instance = options.instance ?? randomId();
    const clock = options.clock ?? CLOCK;
    this.#timers = new Timers(clock);
    this.#own = new Set(options.channels);
    this.#token = new Token(options.getToken);
    const found = drivers(options);
    this.#rest = new Rest(this.base, this.#token, found.fetcher, options.withCredentials);
    this.#names = new Set(["notification", "inbox", "presence", "task", "batch", ...(options.events ?? [])]);

    /** @param {"localStorage" | "sessionStorage"} name */
    const kept = (name) => gentle(options.storage === undefined ? pageStore(name) : options.storage);
    this.#transports = kept("localStorage");
    const channels = [...this.#own];
    const key = () => {
      const { tenant = "", sub = options.user ?? "" } = this.#token.claims();
      return this.#following ? "" : cursorKey(this.base, tenant, sub, channels);
    };
    this.#position = new Position(kept(options.share ? "localStorage" : "sessionStorage"), key, this.#timers, options.manualAck);
    this.#delivery = new Delivery({
      user: () => this.user,
      wants: (channel) => !(this.#following || this.#others.length) || this.#own.has(channel),
      count: () => this.request("counters", {}),
      subscribe: (channel) =>
        this.channels.includes(channel) && this.#engine.send({ type: "subscribe", channels: [channel] }),
      tell: (frame) => this.#sharing?.tell("frame", frame),
      metric: this.#metric,
      events: this.#events,
      position: this.#position,
      timers: this.#timers,
      rest: this.#rest,
      fills: options.backfill ?? "late",
    });

    const memory = found.ws && found.sse ? this.#transports.get(transportKey(this.base)) : null;
    const demoted = memory?.until > Date.now() ? { reason: String(memory.reason) } : null;
    this.#sharing = options.share?.(this.base, randomId(), this.#sharer()) ?? null;
    const given = { demoted, standby: options.standby ?? false, leader: !this.#sharing, timing: { ...TIMING, ...options.timing } };
    const asking = {
      base: this.base,
      token: this.#token,
      rest: this.#rest,
      options,
      drivers: found,
      instance: this.instance,
      channels: () => this.channels,
      events: this.#names,
      cursor: () => this.#position.start(),
    };
    this.#engine = new Engine(
      {
        request: (link, fresh, reason) => request(asking, link, fresh, reason),
        frame: (frame, link) => this.#frame(frame, link),
        token: this.#token,
        changed: (state, before) => this.#changed(state, before),
        remember: (reason, ms) =>
          this.#transports.set(transportKey(this.base), reason && { reason, until: Date.now() + ms }),
        metric: this.#metric,
      },
      found,
      given,
      clock,
    );
    this.#commands = new Commands({
      socket: (frame) => this.#engine.send(frame),
      stream: () => isUp(this.#engine.state.sse),
      rest: this.#rest,
      user: () => this.user,
    });
  }

  // ── what an application says ──

  /**
   * Listens. `type`: `publication` (every one), the type of publications (`notification`, …), `connection`
   * (Status), `badge`, `parity`, or a signal of the protocol (`welcome`, `state`, `gap`, `status`, `stage`,
   * `unsubscribed`, …).
   * @param {string} type @param {(detail: any) => void} listener @returns {() => void} takes it off again
   */
  on(type, listener) {
    this.#names.add(type);
    this.#engine.listen(type);
    const off = this.#events.on(type, listener);
    if (type === "badge" && this.#greeting) this.#delivery.begin();
    return off;
  }

  /** Connects, and stays connected until `disconnect()` or until the server says stop. */
  connect() {
    this.#leaveAlone();
    this.#leaveAlone = watchPage((type) => this.#page(type), () => this.#position.save());
    this.#engine.dispatch({ type: "connect" });
    this.#sharing?.start();
    this.#tell();
  }

  /** Ends the connection; commands that wait are rejected. The position is kept. */
  disconnect() {
    this.#leaveAlone();
    this.#leaveAlone = () => {};
    this.#position.save();
    this.#engine.dispatch({ type: "disconnect" });
    this.#part();
    this.#end("disconnected");
    this.#delivery.end();
    this.#timers.stop();
    this.#tell();
  }

  /** The user signed in again: `getToken` is asked before the next connection. For somebody else make a new client. */
  renew() {
    this.#token.renew();
    this.#engine.dispatch({ type: "token" });
  }

  /** Adds channels. Resolves when they are; rejects with DualcastError. @param {...string} channels */
  async subscribe(...channels) {
    const added = channels.filter((one) => !this.#own.has(one));
    if (!added.length) return;
    for (const one of added) this.#own.add(one);
    /** @param {unknown} error */
    const back = (error) => {
      for (const one of added) this.#own.delete(one);
      this.#sharing?.hello();
      if (this.#engine.state.stopped) this.#engine.dispatch({ type: "channels" });
      throw error;
    };
    this.#sharing?.hello();
    await (this.#following ? this.#sharing?.ask("subscribe", { channels: added }) : this.#take("subscribe", added))?.catch(back);
  }

  /** Removes channels. @param {...string} channels */
  async unsubscribe(...channels) {
    const gone = channels.filter((one) => this.#own.delete(one));
    if (this.#following) return this.#sharing?.hello();
    const over = gone.filter((one) => !this.#others.includes(one));
    if (over.length) await this.#take("unsubscribe", over);
  }

  /**
   * A command of the protocol (PROTO-21), sent when there is a connection.
   * @param {string} type @param {Record<string, any>} [fields]
   * @returns {Promise<any>} the reply; rejects with DualcastError
   */
  async request(type, fields) {
    if (type === "message" && !fields?.id) fields = { ...fields, id: randomId() }; // so that it may be repeated
    if (!this.#following) return this.#perform(type, fields);
    const reply = await this.#sharing?.ask(type, fields);
    this.#delivery.count(reply?.inbox);
    return reply;
  }

  /** @param {string} type @param {Record<string, any>} [fields] */
  async #perform(type, fields) {
    const reply = await this.#commands.send(type, fields);
    this.#delivery.count(reply.inbox);
    if (this.#sharing && reply.action) {
      // The server tells the user's other connections; other tabs of this one have to hear it from here.
      const data = { action: reply.action, ids: reply.ids, ...reply.inbox };
      const channel = `user:${this.user}`;
      const frame = { type: "publication", channel, id: randomId(), event: "inbox", time: "", data };
      this.#sharing.tell("frame", frame);
      this.#heed(frame);
    }
    return reply;
  }

  /** The own inbox. */
  inbox = inboxOf((type, fields) => this.request(type, fields));

  /** The application is done with everything up to `cursor`, or all it was given. @param {string} [cursor] */
  ack(cursor = this.#position.newest) {
    this.#position.ack(cursor);
    if (cursor && !this.#following) this.#engine.send({ type: "ack", cursor });
  }

  // ── what an application asks ──

  /** @returns {Status} */
  get status() {
    if (this.#following && this.#leader) return { ...this.#leader, leader: false };
    const { state } = this.#engine;
    const { ws, sse, stopped, stage } = state;
    const transport = isUp(ws) && !isShadowed(state) ? "websocket" : isUp(sse) ? "sse" : null;
    const busy = isOpen(ws) || isOpen(sse);
    const trying = busy || this.#following ? "connecting" : "waiting";
    const status = transport ? "live" : stopped ? "stopped" : state.asked ? trying : "off";
    return { status, transport, stage, leader: !this.#following, stopped };
  }

  /** Subscribed, or to be; beside `user:<own>` and `all`. With `share`: of all tabs. @returns {string[]} */
  get channels() {
    return [...new Set([...this.#own, ...this.#others])];
  }

  /** "" : not known yet. @returns {string} */
  get user() {
    return this.#greeting?.user ?? this.#token.claims().sub ?? this.options.user ?? "";
  }

  /** The counters of the own inbox; null: not known (listen to `badge`). */
  get badge() {
    return this.#delivery.badge;
  }

  get #following() {
    return this.#sharing ? !this.#sharing.leading : false;
  }

  // ── what connections say ──

  /** @param {Frame} frame @param {"ws" | "sse"} link */
  #frame(frame, link) {
    const { state } = this.#engine;
    if (frame.ref && this.#commands.reply(frame)) return isShadowed(state) || this.#position.take(frame.cursor);
    if (frame.type === "bye" && frame.channels) this.#refused(frame.reason, frame.channels);
    this.#shadow.take(frame, link, state, (id) => this.#delivery.knows(id)).forEach(this.#pass);
  }

  /** It goes on without these. @param {string} reason @param {string[]} channels */
  #refused(reason, channels) {
    this.#welcomes.fail(new DualcastError(reason, "", 0, false, channels));
    this.#pass({ type: "unsubscribed", channels, reason });
    if (this.#engine.state.stopped) this.#engine.dispatch({ type: "channels" });
  }

  #pass = (/** @type {Frame} */ frame) => {
    this.#sharing?.tell("frame", frame);
    this.#heed(frame);
    this.#delivery.follow(frame);
  };

  /** What came, here or by the leader. @param {Frame} frame */
  #heed(frame) {
    if (frame.type === "welcome") this.#greeting = frame;
    else if (frame.type === "unsubscribed") {
      for (const one of frame.channels) this.#own.delete(one);
      this.#others = this.#others.filter((one) => !frame.channels.includes(one));
    }
    this.#delivery.take(frame);
  }

  // ── the machine ──

  /** @param {import("./states.js").State} state @param {import("./states.js").State} before */
  #changed(state, before) {
    if (!isShadowed(state)) this.#shadow.release().forEach(this.#pass);
    if (isUp(before.ws) && !isUp(state.ws)) this.#commands.lost();
    if (NAMES.some((name) => isUp(state[name]) && !isUp(before[name]))) this.#welcomed();
    else if (isUp(state.sse) && !isUp(state.ws)) this.#commands.flush();
    if (state.stopped && !before.stopped) this.#end(state.stopped.reason);
    this.#shadow.parity.watch(isShadowed(state) && isUp(state.ws), this.#timers, this.options.parityMs ?? 60_000, this.#report);
    this.#tell();
  }

  #tell() {
    const status = this.status;
    if (JSON.stringify(status) === JSON.stringify(this.#told)) return;
    this.#told = status;
    this.#sharing?.tell("status", { status, greeting: this.#greeting, cursor: this.#position.newest });
    this.#events.emit("connection", status);
  }

  /** A connection was welcomed. */
  #welcomed() {
    this.#shadow.parity.clear();
    this.#commands.flush();
    this.#welcomes.arrived();
    this.#delivery.begin();
  }

  /** @param {"online" | "offline" | "visible" | "freeze" | "resume"} type */
  #page(type) {
    this.#engine.dispatch({ type });
    if (type === "freeze") this.#part();
    else if (type === "resume" && this.#engine.state.asked) this.#sharing?.start();
  }

  /** Leaves the other tabs. */
  #part() {
    this.#sharing?.stop();
    this.#leader = null;
  }

  /**
   * Brings connections in line with a change of channels.
   * @param {"subscribe" | "unsubscribe"} type @param {string[]} channels @returns {Promise<void>}
   */
  async #take(type, channels) {
    const { ws } = this.#engine.state;
    if (isUp(ws)) await this.#welcomes.next(this.#commands.send(type, { channels }), channels);
    else if (isOpen(ws)) {
      await this.#welcomes.next(undefined, channels); // it was asked for without them
      return this.#take(type, channels);
    }
    const { sse, stopped } = this.#engine.state;
    if (isOpen(sse) || stopped) this.#engine.dispatch({ type: "channels" });
    if (isActive(this.#engine.state) && !isUp(this.#engine.state.ws)) await this.#welcomes.next(undefined, channels);
  }

  /** @param {string} code */
  #end(code) {
    this.#commands.fail(code);
    this.#welcomes.fail(new DualcastError(code));
  }

  /** @param {import("./parity.js").Report} report */
  #report = (report) => {
    this.#events.emit("parity", report);
    this.#rest.call("POST", "/v1/parity", { instance: this.instance, ...report }).catch(() => {});
  };

  // ── other tabs ──

  /** @returns {import("./tabs.js").Sharer} */
  #sharer() {
    return {
      lead: (leading) => this.#engine.dispatch({ type: "leader", leader: leading }),
      frame: (frame) => this.#heed(frame),
      status: ({ status, greeting, cursor }) => {
        this.#leader = status;
        this.#greeting = greeting;
        if (!this.#position.newest) this.#position.take(cursor);
        if (greeting) this.#delivery.begin();
        this.#tell();
      },
      present: () => ({ status: this.status, greeting: this.#greeting, cursor: this.#position.newest }),
      channels: () => [...this.#own],
      others: async (channels, again) => {
        const before = again ? [...this.#own] : this.channels;
        this.#others = channels;
        const added = channels.filter((one) => !before.includes(one));
        const gone = before.filter((one) => !this.channels.includes(one));
        if (gone.length) this.#take("unsubscribe", gone).catch(() => {});
        if (added.length) await this.#take("subscribe", added);
      },
      refused: (reason, channels) => this.#refused(reason, channels),
      command: (type, fields) =>
        type === "subscribe" ? this.#take(type, fields.channels) : this.#perform(type, fields),
    };
  }
}
