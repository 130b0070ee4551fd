// What every node tells of itself without asking who wants to know. Behind a load balancer: of one node.

import { Refusal, ask, words } from "./console-api.js";
import { facts, fill, h } from "./console-dom.js";
import { byLabel, parse, total } from "./console-metrics.js";
import { number } from "./console-text.js";

const EVERY_S = 10;

/** @param {HTMLElement} body @param {import("./console.js").Context} context @returns {string} the title */
export function health(body, { api, role, every }) {
  const [server, nodes, counters] = ["Server", "Nodes", "Delivery"].map((title) => [title, h("div", null, "Loading…")]);
  for (const [title, inner] of [server, nodes, counters]) body.append(h("section", { class: "panel" }, h("h3", null, title), inner));

  const load = () => {
    void into(server[1], serverFacts);
    void into(nodes[1], () => nodeFacts(api, role));
    void into(counters[1], counterFacts);
  };
  load();
  every(EVERY_S, load);
  return "Health";
}

/** @param {HTMLElement} element @param {() => Promise<Node>} make */
async function into(element, make) {
  try {
    fill(element, await make());
  } catch (error) {
    fill(element, h("p", { class: "refusal" }, words(error)));
  }
}

async function json(path) {
  const answer = await ask(path);
  const found = await answer.json().catch(() => null);
  if (!found) throw new Refusal(answer.status, `status-${answer.status}`);
  return [answer.ok, found];
}

async function serverFacts() {
  const [[, alive], [ready, state]] = await Promise.all([json("/healthz"), json("/readyz")]);
  const ms = (/** @type {number | null} */ s) => (s === null || s === undefined ? "–" : `${number(Math.round(s * 10_000) / 10)} ms`);
  return h(
    "div",
    null,
    h("p", { class: `light ${ready ? "good" : "bad"}` }, ready ? "ready" : `not ready: ${state.code}`),
    facts([
      ["Version", alive.version],
      ["Event bus", ready ? `answers (engine ${state.engine})` : String(state.detail ?? "")],
      ["Its answer", ready ? ms(state.command_s) : null],
      ["Its echo on the live path", ready ? ms(state.echo_s) : null],
    ]),
  );
}

async function nodeFacts(api, role) {
  if (role === "user") return h("p", { class: "hint" }, "Nodes are counted by the connections of the tenant, which admins see.");
  const { connections, next } = await api.get("/v1/connections?limit=1000");
  const count = new Map();
  for (const { node } of connections) count.set(node, (count.get(node) ?? 0) + 1);
  return h(
    "div",
    null,
    facts([["Nodes that hold connections of your tenant", `${next ? "at least " : ""}${count.size}`]]),
    h("ul", null, [...count].sort().slice(0, 100).map(([node, many]) => h("li", null, h("code", null, node), ` ${number(many)}`))),
  );
}

async function counterFacts() {
  const answer = await ask("/metrics");
  if (answer.status === 401) return h("p", { class: "hint" }, "The server gives its metrics to the holder of the metrics token only (server.metrics_token).");
  if (!answer.ok) throw new Refusal(answer.status, `status-${answer.status}`);
  const found = parse(await answer.text());
  const sum = (/** @type {string} */ name) => number(total(found, name));
  const parts = [...byLabel(found, "dualcast_connections", "transport")].map(([name, many]) => `${name} ${number(many)}`).join(", ");
  return h(
    "div",
    null,
    facts([
      ["Live connections", `${sum("dualcast_connections")}${parts ? ` (${parts})` : ""}`],
      ["Opened, closed, refused", ["opened", "closed", "refused"].map((what) => sum(`dualcast_connections_${what}_total`)).join(", ")],
      ["Delivered", sum("dualcast_deliveries_total")],
      ["Of these from history", sum("dualcast_deliveries_recovered_total")],
      ["Gaps told", sum("dualcast_gaps_total")],
      ["Closed for lagging", sum("dualcast_sessions_lag_closed_total")],
      ["Behind now", sum("dualcast_sessions_behind")],
      ["Appended to the bus", sum("dualcast_bus_appended_total")],
      ["Waiting to be published", sum("dualcast_publish_waiting")],
      ["Loop lag", `${number(Math.round(total(found, "dualcast_loop_lag_seconds") * 1_000))} ms`],
      ["Memory", `${number(Math.round(total(found, "process_resident_memory_bytes") / 1_048_576))} MiB`],
    ]),
    h("p", { class: "hint" }, "Of the node that answered, all tenants together, since it started."),
  );
}
