// What is known of a tenant: readiness with its budgets, the census, parity.

import { facts, h, table } from "./console-dom.js";
import { number, percent, short, span, time } from "./console-text.js";

const KINDS = 50;
/** Budget → its title, its figure in the window, how many samples that is of, and the unit. */
const BUDGETS = [
  ["websocket_open_failure_percent", "WebSocket opens that failed", "websocket_open_failure_percent", "websocket_opens", " %"],
  ["abnormal_close_percent", "WebSockets that ended abnormally", "abnormal_close_percent", "websocket_closes", " %"],
  ["parity_mismatches", "Publications that did not match", "mismatched", "compared", ""],
  ["reconnects_per_user", "Reconnects per user", "reconnects_per_user", "users", ""],
  ["lag_p99_ms", "Lag, 99th percentile", "lag_p99_ms", null, " ms"],
];

/** `GET …/readiness` @param {any} found */
export function readiness(found) {
  const broken = new Map(found.reasons.map((one) => [one.code, one]));
  const code = (/** @type {string} */ name) => "budget-" + name.replaceAll("_", "-");
  const rows = BUDGETS.map(([name, title, figure, samples, unit]) => {
    const reason = broken.get(code(name));
    return [
      title,
      `${number(found.window[figure])}${unit}${samples ? ` of ${number(found.window[samples])}` : ""}`,
      reason ? h("strong", { class: "bad" }, `broken: above ${number(reason.limit)}${unit}`) : "kept",
    ];
  });
  return [
    h("p", { class: `light ${found.ready ? "good" : "so-so"}` }, found.ready ? `Ready for ${found.next}` : found.next ? `Not ready for ${found.next}` : "In the last stage"),
    reasons("Against it", found.reasons),
    reasons("Good to know", found.warnings),
    table("Budgets", ["Budget", `In the last ${span(found.window.seconds)}`, ""], rows, ""),
    h("p", { class: "hint" }, `In this stage since ${time(found.since)}: ${number(found.totals.websocket_opens)} WebSocket opens, ${number(found.totals.websocket_open_failures)} failed, ${number(found.totals.reconnects)} reconnects.`),
  ];
}

/** @param {string} title @param {{code: string, text: string}[]} found */
const reasons = (title, found) =>
  found.length > 0 && h("div", null, h("h4", null, title), h("ul", null, found.map((one) => h("li", null, one.text, " ", h("code", null, one.code)))));

/** `GET …/census` @param {any} found */
export function census(found) {
  /** @type {Map<string, {transport: string, agent: string, app: string, live: number, connects: number, users: number, left: boolean, last: string}>} */
  const groups = new Map();
  for (const row of found.rows) {
    const agent = family(row.agent);
    const key = JSON.stringify([row.transport, agent, row.app]);
    const one = groups.get(key) ?? { transport: row.transport, agent, app: row.app, live: 0, connects: 0, users: 0, left: false, last: "" };
    one.live += row.live;
    one.connects += row.connects;
    one.users += row.users;
    one.left ||= row.transport === "sse" && !row.instance;
    if (row.last_seen > one.last) one.last = row.last_seen;
    groups.set(key, one);
  }
  const sorted = [...groups.values()].sort((a, b) => b.live - a.live || b.connects - a.connects);
  const rows = sorted.slice(0, KINDS).map((one) => [
    one.transport,
    [short(one.agent || "unknown", 60), one.left && h("small", null, " stays on SSE")],
    short(one.app || "–", 40),
    number(one.live),
    number(one.connects),
    `≈ ${number(one.users)}`,
    time(one.last),
  ]);
  return [
    facts([
      ["Streams now", number(found.live_sse)],
      ["WebSockets now", number(found.live_ws)],
      ["Streams that cannot have a WebSocket beside them", number(found.live_left)],
    ]),
    table("Census of 30 days", ["Transport", "User agent", "App", "Live", "Connects", "Users", "Last seen"], rows, "Nobody has connected in 30 days."),
    sorted.length > KINDS && h("p", { class: "hint" }, `and ${number(sorted.length - KINDS)} kinds more (dualcast migrate census)`),
  ];
}

/** The user agent without its version. @param {string} agent */
const family = (agent) => agent.replace(/[\s/]+\d[\d.]*$/, "");

/** `GET …/parity` @param {any} found */
export function parity(found) {
  const { server, clients, mismatches } = found;
  const latency = (/** @type {any} */ one) => (one.samples ? `p50 ${number(one.p50_ms)} ms, p99 ${number(one.p99_ms)} ms of ${number(one.samples)}` : "nobody told");
  const share = (/** @type {any} */ one) => `${number(one.mismatches)} of ${number(one.compared)}${one.compared ? ` (${percent(Math.round((one.mismatches / one.compared) * 10_000) / 100)})` : ""}`;
  const rows = mismatches.map((/** @type {any} */ one) => [
    time(one.at),
    one.source,
    short(one.user, 60),
    `${number(one.mismatches)} of ${number(one.compared)}`,
    h("details", { "data-of": `${one.at} ${one.source} ${one.user}` }, h("summary", null, "Show"), h("pre", null, short(JSON.stringify(one.differences, null, 1), 4_000))),
  ]);
  return [
    facts([
      ["Did not match, the server says", share(server)],
      ["Did not match, clients say", share(clients)],
      ["From publication to arrival by SSE", latency(clients.sse)],
      ["From publication to arrival by WebSocket", latency(clients.websocket)],
    ]),
    table("Mismatches", ["When", "Who compared", "User", "How many", "What"], rows, "No mismatch was recorded."),
  ];
}
