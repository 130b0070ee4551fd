import { CLOCK } from "@dualcast/client/src/engine.js";
import { Emitter } from "@dualcast/client/src/emitter.js";
import { Timers } from "@dualcast/client/src/timers.js";
import { Connection } from "./connection.js";
import { HandlerRegistry } from "./handlers.js";
import { Heartbeat } from "./heartbeat.js";
import { messageEventHandler } from "./message_event_handler.js";
import { MessageQueue } from "./message_queue.js";
import { Reconnect, backoff } from "./reconnect.js";
import { serialize } from "./serializer.js";
import { CONNECTION_STATUS, IDLE } from "./types.js";

/** @typedef {import("./types.js").Message} Message */
/** @typedef {import("./types.js").Reason} Reason */
/**
 * @typedef {object} ClientOptions
 * @property {() => string} url asked before every attempt
 * @property {Pick<import("./types.js").DeviceConfig, "connectionTimeout" | "heartbeatInterval">} config
 * @property {import("./reconnect.js").Policy} [policy]
 * @property {() => unknown} [heartbeat] what one beat is
 * @property {() => readonly unknown[]} [greeting] what is sent when the socket opens
 * @property {string} [farewell] the reason of its own close
 * @property {boolean} [answers] answers to heartbeats are messages, too
 * @property {number} [queueLimit]
 * @property {typeof WebSocket} [WebSocket]
 * @property {import("./types.js").Clock} [clock]
 */

const { CONNECTED, CONNECTING, DISCONNECTED, ERROR, RECONNECTING } = CONNECTION_STATUS;
const CLEAN = 1000;
/** Coming back would end the same way. @type {Readonly<Record<number, Reason>>} */
const FINAL = { 1008: "refused", 4001: "refused", 4003: "refused", 4409: "replaced" };
/** Stale by the time a connection is back. */
const VOLATILE = new Set(["ping", "heartbeat", "typing"]);

/**
 * A client of one socket of the older contracts. Inert until `connect()`; then it stays connected until
 * `disconnect()`, until the server says that it need not come back, or until no attempt is left.
 */
export class WebSocketClient {
  #options;
  #timers;
  #reconnect;
  #heartbeat;
  #queue;
  #connection;
  #receive;
  #events = new Emitter();
  #active = false;
  /** @type {Readonly<import("./types.js").Snapshot>} */
  #snapshot = IDLE;
  handlers = new HandlerRegistry();

  /** @param {ClientOptions} options */
  constructor(options) {
    this.#options = options;
    const clock = options.clock ?? CLOCK;
    this.#timers = new Timers(clock);
    this.#reconnect = new Reconnect(options.policy ?? backoff(), this.#timers, clock.random);
    const { connectionTimeout, heartbeatInterval } = options.config;
    this.#queue = new MessageQueue(options.queueLimit);
    const Socket = options.WebSocket ?? globalThis.WebSocket;
    this.#connection = new Connection(Socket, connectionTimeout, this.#timers, {
      open: () => {
        for (const message of options.greeting?.() ?? []) this.#write(message);
        this.#beat(); // whoever answers this shows that the socket carries something
      },
      message: (data) => this.#message(data),
      close: (closed) => this.#closed(closed),
    });
    this.#heartbeat = new Heartbeat(heartbeatInterval, () => this.#beat(), () => this.#connection.drop(), this.#timers);
    this.#receive = messageEventHandler({
      alive: (answer) => this.#heartbeat.alive(answer),
      deliver: (message) => {
        this.#change({ lastMessage: message });
        this.handlers.dispatch(message);
      },
      answers: options.answers ?? false,
    });
  }

  // ── for React's useSyncExternalStore ──

  /** @param {() => void} listener of `getSnapshot()` @returns {() => void} takes it off */
  watch = (listener) => this.#events.on("change", listener);

  getSnapshot = () => this.#snapshot;

  // ── what an application says ──

  /** @param {() => void} listener @returns {() => void} takes it off */
  onConnect = (listener) => this.#events.on("connect", listener);

  /** @param {(closed: import("./types.js").Closed) => void} listener @returns {() => void} takes it off */
  onDisconnect = (listener) => this.#events.on("disconnect", listener);

  /** Connects. All attempts are left again. */
  connect = () => {
    if (this.#active) return;
    this.#active = true;
    globalThis.addEventListener?.("online", this.#online);
    this.#reconnect.reset();
    this.#attempt();
  };

  /** Disconnects until `connect()`; what waits to be sent is dropped. */
  disconnect = () => {
    if (!this.#active) return;
    this.#connection.close(CLEAN, this.#options.farewell); // first: who is told of the end may connect anew
    this.#end("manual", DISCONNECTED);
  };

  /**
   * Sends a message, or keeps it until there is a connection.
   * @param {unknown} message an object, or text as it is
   * @returns {boolean} false: it is not going to be sent, because there is none and will be none, it is a beat, too
   *   much waits already, or it is no JSON or too large
   */
  send(message) {
    const text = serialize(message);
    if (text === null) return false;
    if (this.#snapshot.isConnected && this.#connection.send(text)) return true;
    const { type, action } = typeof message === "object" ? /** @type {any} */ (message) : { type: message };
    return this.#active && !VOLATILE.has(type) && !VOLATILE.has(action) && this.#queue.push(text);
  }

  // ── inside ──

  /** @param {unknown} message @returns {boolean} */
  #write(message) {
    const text = serialize(message);
    return text !== null && this.#connection.send(text);
  }

  #beat() {
    return this.#write(this.#options.heartbeat?.() ?? { type: "ping" });
  }

  #online = () => this.#reconnect.hurry();

  #attempt() {
    this.#change({ connectionStatus: this.#reconnect.attempts ? RECONNECTING : CONNECTING, reason: "" });
    try {
      this.#connection.open(this.#options.url());
    } catch {
      this.#end("address", ERROR); // no address, or an insecure one on a secure page
    }
  }

  /** @param {unknown} data */
  #message(data) {
    if (!this.#snapshot.isConnected) {
      // The server greets whom it lets in: a socket that only opened may be one that is refused.
      this.#reconnect.reset();
      this.#heartbeat.start();
      this.#change({ isConnected: true, connectionStatus: CONNECTED });
      this.#events.emit("connect");
      this.#queue.flush((text) => this.#connection.send(text));
    }
    this.#receive(data);
  }

  /** @param {import("./types.js").Closed & {clean: boolean}} closed */
  #closed({ code, reason, clean }) {
    const final = FINAL[code] ?? (clean && code === CLEAN ? "closed" : "");
    if (final) return this.#end(final, final === "closed" ? DISCONNECTED : ERROR, { code, reason });
    if (!this.#reconnect.schedule(() => this.#attempt())) return this.#end("exhausted", ERROR, { code, reason });
    this.#heartbeat.stop();
    this.#leave({ connectionStatus: RECONNECTING }, { code, reason });
  }

  /** @param {Reason} reason @param {import("./types.js").ConnectionStatus} status @param {import("./types.js").Closed} [closed] */
  #end(reason, status, closed = { code: CLEAN, reason: this.#options.farewell ?? "" }) {
    this.#active = false;
    this.#reconnect.stop();
    this.#heartbeat.stop();
    this.#queue.clear();
    globalThis.removeEventListener?.("online", this.#online);
    this.#leave({ connectionStatus: status, reason }, closed);
  }

  /** @param {Partial<import("./types.js").Snapshot>} changes @param {import("./types.js").Closed} closed */
  #leave(changes, closed) {
    const was = this.#snapshot.isConnected;
    this.#change({ ...changes, isConnected: false });
    if (was) this.#events.emit("disconnect", closed);
  }

  /** @param {Partial<import("./types.js").Snapshot>} changes */
  #change(changes) {
    this.#snapshot = Object.freeze({ ...this.#snapshot, ...changes });
    this.#events.emit("change");
  }
}
