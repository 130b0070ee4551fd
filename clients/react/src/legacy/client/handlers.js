import { Emitter } from "@dualcast/client/src/emitter.js";

/** @typedef {import("./types.js").Message} Message */
/** @typedef {(message: Message) => void} Handler */

// No frame has these names: they hold a space.
const ANY = "any message";
const OTHER = "other messages";

/** Handlers by the name of what they handle. One that throws harms no other: its error is reported as uncaught. */
export class HandlerRegistry {
  #handlers = new Emitter();

  /** @param {string} name of frames, by any of their three names @param {Handler} handler @returns {() => void} takes it off */
  on(name, handler) {
    return this.#handlers.on(name, handler);
  }

  /** Every message. @param {Handler} handler @returns {() => void} takes it off */
  onAny(handler) {
    return this.#handlers.on(ANY, handler);
  }

  /** Messages that have no handler of their own. @param {Handler} handler @returns {() => void} takes it off */
  onOther(handler) {
    return this.#handlers.on(OTHER, handler);
  }

  /** @param {Message} message */
  dispatch(message) {
    const names = new Set([message.event_type, message.action, message.type]);
    const heard = [...names].filter((name) => this.#handlers.has(name));
    for (const name of heard) this.#handlers.emit(name, message);
    if (!heard.length) this.#handlers.emit(OTHER, message);
    this.#handlers.emit(ANY, message);
  }
}
