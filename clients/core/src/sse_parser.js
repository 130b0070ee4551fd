// The event stream format of WHATWG HTML section 9.2.6, as text comes in, in pieces of any size.

/**
 * @typedef {object} StreamEvent
 * @property {string} type event name, `message` where none was given
 * @property {string} data
 * @property {string} id the last event id now
 */
/**
 * @typedef {object} Listener
 * @property {(event: StreamEvent) => void} event
 * @property {(id: string) => void} [position] a block moved the last event id and dispatched nothing
 * @property {(ms: number) => void} [retry]
 */

/**
 * A function that takes text; call it with what was decoded as UTF-8 (its BOM removed, as TextDecoder does).
 * What stands before the last blank line is dispatched, the rest is kept; an unfinished block at the end of a
 * stream is never dispatched.
 * @param {Listener} listener
 * @param {string} [lastId]
 * @returns {(text: string) => void}
 */
export function parser(listener, lastId = "") {
  /** @type {string[]} pieces of the last line */
  let rest = [];
  let afterCr = false;
  let type = "";
  let data = "";
  let hasData = false;
  let id = lastId;

  /** @param {string} text */
  return function feed(text) {
    if (afterCr && text) {
      afterCr = false;
      if (text[0] === "\n") text = text.slice(1);
    }
    // Only what is new is searched, so that a long line in many pieces costs no more than in one.
    const ends = /\r\n|\r|\n/g;
    let start = 0;
    for (let end = ends.exec(text); end; end = ends.exec(text)) {
      const whole = rest.join("") + text.slice(start, end.index);
      rest = [];
      start = ends.lastIndex;
      // A CR at the very end may be half of a CRLF.
      afterCr = end[0] === "\r" && start === text.length;
      line(whole);
    }
    if (start < text.length) rest.push(text.slice(start));
  };

  /** @param {string} text */
  function line(text) {
    if (!text) return dispatch();
    const colon = text.indexOf(":");
    if (colon === 0) return;
    const name = colon < 0 ? text : text.slice(0, colon);
    let value = colon < 0 ? "" : text.slice(colon + 1);
    if (value[0] === " ") value = value.slice(1);
    if (name === "data") {
      data += hasData ? "\n" + value : value;
      hasData = true;
    } else if (name === "event") type = value;
    else if (name === "id") {
      if (!value.includes("\0")) id = value;
    } else if (name === "retry" && /^[0-9]+$/.test(value)) listener.retry?.(Number(value));
  }

  function dispatch() {
    const moved = id !== lastId;
    lastId = id;
    if (hasData) {
      const event = { type: type || "message", data, id };
      type = data = "";
      hasData = false;
      listener.event(event);
    } else {
      type = "";
      if (moved) listener.position?.(id);
    }
  }
}
