import { WebSocketClient } from "./index.js";
import { steady } from "./reconnect.js";

const PING_MS = 30_000;
const AGAIN_MS = 3_000;
const ATTEMPTS = 5;
const TIMEOUT_MS = 20_000;
const MAX_ROOMS = 200;

/**
 * The contract `rooms` (legacy-wire.md section 4): notifications, sync updates and system messages of one user, and
 * rooms. It comes back five times, every three seconds, and joins its rooms again.
 */
export class RoomsClient extends WebSocketClient {
  /** Room → how many want to be in it. @type {Map<string, number>} */
  #rooms = new Map();
  /** Those the greeting of this connection named. @type {readonly string[]} */
  #greeted = [];
  #token;

  /**
   * @param {{base: () => string, userId: string, token: string} & Partial<import("./index.js").ClientOptions>} options `base`:
   *   `serverBase().ws`
   */
  constructor({ base, userId, token, ...options }) {
    super({
      url: () => `${base()}/api/v1/ws/${encodeURIComponent(userId)}?token=${encodeURIComponent(this.#token)}`,
      config: { connectionTimeout: TIMEOUT_MS, heartbeatInterval: PING_MS },
      policy: steady(AGAIN_MS, ATTEMPTS),
      greeting: () => [{ type: "get_stats" }, ...this.#greet().map((room) => ({ type: "subscribe", room }))],
      farewell: "Manual disconnect",
      answers: true,
      ...options,
    });
    this.#token = token;
    this.onConnect(() => {
      // What was joined and left between the greeting and the first answer.
      for (const room of this.#rooms.keys()) if (!this.#greeted.includes(room)) this.send({ type: "subscribe", room });
      for (const room of this.#greeted) if (!this.#rooms.has(room)) this.send({ type: "unsubscribe", room });
    });
  }

  #greet() {
    return (this.#greeted = [...this.#rooms.keys()]);
  }

  /** The token was renewed: the next attempt uses it, and one follows if the old one was refused. @param {string} token */
  renew = (token) => {
    if (token === this.#token) return;
    this.#token = token;
    if (this.getSnapshot().reason === "refused") this.connect();
  };

  /**
   * Joins a room now, and again after each reconnect; 200 at most.
   * @param {string} room @returns {() => void} leaves it, when everybody who joined it has called theirs
   */
  subscribe = (room) => {
    const wanted = this.#rooms.get(room) ?? 0;
    if (!wanted && this.#rooms.size >= MAX_ROOMS) return () => {};
    this.#rooms.set(room, wanted + 1);
    if (!wanted && this.getSnapshot().isConnected) this.send({ type: "subscribe", room });
    let joined = true;
    return () => {
      const count = joined ? (this.#rooms.get(room) ?? 0) : 0;
      joined = false;
      if (count > 1) this.#rooms.set(room, count - 1);
      else if (count) this.unsubscribe(room);
    };
  };

  /** Leaves a room, whoever joined it. @param {string} room */
  unsubscribe = (room) => {
    if (this.#rooms.delete(room) && this.getSnapshot().isConnected) this.send({ type: "unsubscribe", room });
  };
}
