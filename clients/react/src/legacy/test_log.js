import { createElement as h, useCallback, useReducer } from "react";

/** @typedef {{number: number, way: "in" | "out" | "info", time: string, text: string}} Line */

export const MAX_LINES = 200;
const MAX_TEXT = 2_000;

/**
 * Lines of a test page, the last 200.
 * @returns {{lines: readonly Line[], received: number, sent: number, add: (way: Line["way"], what: unknown) => void, clear: () => void}}
 */
export function useTestLog() {
  const [state, dispatch] = useReducer(reduce, { lines: [], number: 0, received: 0, sent: 0 });
  const add = useCallback((/** @type {Line["way"]} */ way, /** @type {unknown} */ what) => {
    const text = typeof what === "string" ? what : JSON.stringify(what);
    dispatch({ way, text: text.length > MAX_TEXT ? text.slice(0, MAX_TEXT) + "…" : text, time: new Date().toLocaleTimeString() });
  }, []);
  const clear = useCallback(() => dispatch(null), []);
  return { ...state, add, clear };
}

/**
 * @typedef {{lines: Line[], number: number, received: number, sent: number}} Log
 * @param {Log} log @param {Omit<Line, "number"> | null} added null: all of it goes @returns {Log}
 */
function reduce(log, added) {
  if (!added) return { ...log, lines: [], received: 0, sent: 0 };
  const number = log.number + 1;
  return {
    lines: [...log.lines, { ...added, number }].slice(-MAX_LINES),
    number,
    received: log.received + Number(added.way === "in"),
    sent: log.sent + Number(added.way === "out"),
  };
}

/**
 * A message as its frame of `rooms` came, as far as that can be told.
 * @param {import("./client/types.js").Message} message
 */
export function frameOf({ action: _action, event_type: _eventType, data, ...frame }) {
  const own = data === null || typeof data !== "object" || Object.entries(data).some(([name, value]) => frame[name] !== value);
  return own ? { ...frame, data } : frame;
}

const ARROWS = { in: "←", out: "→", info: "·" };

/** @param {{log: ReturnType<typeof useTestLog>}} props */
export function TestLog({ log }) {
  return h(
    "section",
    { className: "dc-test-section", "aria-label": "Log" },
    h(
      "p",
      { className: "dc-test-row" },
      h("span", null, h("b", { "data-count": "received" }, log.received), " received"),
      h("span", null, h("b", { "data-count": "sent" }, log.sent), " sent"),
      h("button", { type: "button", onClick: log.clear }, "Clear log"),
    ),
    h(
      "ol",
      { className: "dc-test-log", role: "log", "aria-label": "Messages", tabIndex: 0 },
      log.lines.toReversed().map(({ number, way, time, text }) =>
        h("li", { key: number, "data-way": way }, h("span", { className: "dc-test-time" }, `${ARROWS[way]} ${time} `), h("code", { dir: "ltr" }, text)),
      ),
    ),
  );
}
