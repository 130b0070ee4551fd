import { DualcastError } from "./errors.js";

/**
 * @typedef {object} Command
 * @property {string} type
 * @property {Record<string, any>} fields
 * @property {(reply: any) => void} resolve
 * @property {(error: Error) => void} reject
 * @property {any} timer of one that was sent
 */
/** Commands that may wait. */
export const OUTBOX = 100;
/** Longer than a dead socket goes unnoticed: then the command is sent again instead. */
const ANSWER_MS = 45_000;

/**
 * Commands on their way: sent over the socket, or over REST where there is only a stream, or waiting for a
 * connection. A command whose connection broke is sent again, which every one bears (a `message` has its id);
 * only that somebody typed is forgotten.
 */
export class Commands {
  #ways;
  #limit;
  /** @type {Map<string, Command>} */
  #open = new Map();
  #number = 0;

  /**
   * @param {object} ways
   * @param {(frame: object) => boolean} ways.socket false: there is no live socket
   * @param {() => boolean} ways.stream whether a stream lives
   * @param {import("./rest.js").Rest} ways.rest
   * @param {() => string} ways.user
   * @param {number} [limit]
   */
  constructor(ways, limit = OUTBOX) {
    this.#ways = ways;
    this.#limit = limit;
  }

  /**
   * The reply. Rejects with DualcastError.
   * @param {string} type @param {Record<string, any>} [fields] @returns {Promise<any>}
   */
  send(type, fields = {}) {
    return new Promise((resolve, reject) => {
      if (this.#open.size >= this.#limit) return reject(new DualcastError("outbox-full", "", 0, true));
      try {
        JSON.stringify(fields);
      } catch {
        return reject(new DualcastError("bad-command"));
      }
      const ref = `c${(this.#number += 1)}`;
      this.#open.set(ref, { type, fields, resolve, reject, timer: 0 });
      this.#way(ref);
    });
  }

  /** Those that wait go out, in order. */
  flush() {
    for (const ref of [...this.#open.keys()]) this.#way(ref);
  }

  /** The socket is gone: what it had not answered waits again. */
  lost() {
    for (const [ref, command] of this.#open) {
      if (command.timer === REST) continue;
      clearTimeout(command.timer);
      command.timer = 0;
      if (command.type === "typing") this.#end(ref, "disconnected");
    }
  }

  /** A reply; false if it is none. @param {Record<string, any>} frame */
  reply(frame) {
    const command = this.#open.get(frame.ref);
    if (!command) return false;
    if (frame.type === "error") this.#end(frame.ref, frame.code, frame.reason, frame.channels);
    else {
      this.#take(frame.ref);
      command.resolve(frame);
    }
    return true;
  }

  /** Nothing will be sent any more. @param {string} code */
  fail(code) {
    for (const ref of [...this.#open.keys()]) this.#end(ref, code);
  }

  /** @param {string} ref */
  #way(ref) {
    const command = this.#open.get(ref);
    if (!command || command.timer || this.#ask(ref, command)) return;
    if (this.#ways.stream()) this.#post(ref, command);
    else if (command.type === "typing") this.#end(ref, "disconnected");
  }

  /** Over the socket; false: there is none. @param {string} ref @param {Command} command */
  #ask(ref, command) {
    const { type, fields } = command;
    const sent = this.#ways.socket({ type, ref, ...fields });
    if (sent) command.timer = setTimeout(() => this.#end(ref, "timeout"), ANSWER_MS);
    return sent;
  }

  /**
   * Over REST: read when it is needed, which it is on few pages. What has no way there waits for a socket.
   * @param {string} ref @param {Command} command
   */
  async #post(ref, command) {
    const { type, fields } = command;
    command.timer = REST;
    const route = await import("./routes.js").then(({ ROUTES }) => ROUTES[type], () => undefined);
    try {
      const reply = route && { ...(await route(this.#ways.rest, this.#ways.user(), fields)), type };
      if (reply) return void this.#take(ref)?.resolve(reply);
    } catch (/** @type {any} */ error) {
      if (error.code !== "unreachable" || type === "typing") return void this.#take(ref)?.reject(error);
    }
    command.timer = 0;
    if (this.#open.has(ref)) this.#ask(ref, command);
  }

  /** @param {string} ref */
  #take(ref) {
    const command = this.#open.get(ref);
    this.#open.delete(ref);
    if (command?.timer !== REST) clearTimeout(command?.timer);
    return command;
  }

  /** @param {string} ref @param {string} code @param {string} [reason] @param {string[]} [channels] */
  #end(ref, code, reason, channels) {
    this.#take(ref)?.reject(new DualcastError(code, reason, 0, code === "bus-unavailable", channels));
  }
}

/** In place of a timer: REST has its own end. */
const REST = {};
