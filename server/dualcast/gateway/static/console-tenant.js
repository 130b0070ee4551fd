// One tenant: where its migration is, whether it may go on, who connects how, and moving it.

import { words } from "./console-api.js";
import { changeDialog, rollbackDialog } from "./console-change.js";
import { facts, fill, h, table } from "./console-dom.js";
import { census, parity, readiness } from "./console-evidence.js";
import { cohort, difference, second, short, time } from "./console-text.js";

const STAGES = ["sse", "shadow", "fallback", "websocket"];
const EVERY_S = 10;
const AUDIT = 20;

/** @param {HTMLElement} body @param {import("./console.js").Context} context @param {string} id @returns {string} the title */
export function tenant(body, { api, live, every, leaving }, id) {
  const path = `/v1/tenants/${encodeURIComponent(id)}`;
  const panels = {
    stage: panel("Stage"),
    readiness: panel("May it go on?"),
    census: panel("Who connects how"),
    parity: panel("Do the transports match?"),
    audit: panel("Who changed what"),
  };
  fill(body, h("p", null, h("a", { href: "#tenants" }, "All tenants")), Object.values(panels).map((one) => one.section));
  let older = 0;
  let over = false;
  leaving(() => (over = true));

  /**
   * Draws an answer, unless it is the one that is shown or another has overtaken it. The focus stays where it was, and
   * what was opened stays open. While the server does not answer, what was known stays with its time.
   */
  async function load(/** @type {ReturnType<typeof panel>} */ into, /** @type {string} */ from, /** @type {(found: any) => any} */ draw) {
    const mine = (into.turn += 1);
    try {
      const found = await api.get(path + from);
      if (over || mine !== into.turn) return;
      into.at = new Date();
      tell(into, "");
      const text = JSON.stringify({ ...found, at: "" });
      if (text === into.shown) return;
      into.shown = text;
      const focus = into.body.contains(document.activeElement) ? label(document.activeElement) : null;
      const open = new Set([...into.body.querySelectorAll("details[open]")].map((one) => one.dataset.of));
      fill(into.body, draw(found));
      for (const one of into.body.querySelectorAll("details")) one.open = open.has(one.dataset.of);
      const same = [...into.body.querySelectorAll("button, summary, [tabindex]")].find((one) => label(one) === focus);
      if (focus) (same ?? into.section.querySelector("h3"))?.focus({ preventScroll: true });
    } catch (error) {
      if (over || mine !== into.turn) return;
      const known = error.open && into.shown;
      if (!known) fill(into.body);
      if (!known) into.shown = "";
      tell(into, words(error) + (known ? ` This is how it was at ${into.at.toLocaleTimeString()}.` : ""));
    }
  }

  function refresh() {
    void load(panels.stage, "/migration", (view) => stage(view, api, path, refresh));
    void load(panels.readiness, "/readiness", readiness);
    void load(panels.census, "/census?limit=2000", census);
    void load(panels.parity, "/parity?limit=20", parity);
    void load(panels.audit, `/audit?limit=${AUDIT}&before=${older}`, (page) => audit(page, older, (before) => ((older = before), refresh())));
  }
  refresh();
  every(EVERY_S, refresh);
  // A change of the own tenant is heard of at once.
  leaving(live.client.on("stage", refresh));
  return `Tenant ${id}`;
}

/** What tells a thing that can have the focus from its neighbours. @param {Element} element */
const label = (element) => element.getAttribute("aria-label") ?? element.textContent;

/** @param {string} title */
function panel(title) {
  const body = h("div", null, "Loading…");
  const told = h("div", { role: "alert" });
  const section = h("section", { class: "panel", "aria-label": title }, h("h3", { tabindex: -1 }, title), told, body);
  return { section, told, body, shown: "", at: new Date(), turn: 0 };
}

/** Says what is wrong, once. @param {ReturnType<typeof panel>} into @param {string} text "": nothing is */
function tell({ told }, text) {
  if (told.textContent !== text) fill(told, text && h("p", { class: "refusal" }, text));
}

function stage(view, api, path, changed) {
  const { record, version, last } = view;
  const place = STAGES.indexOf(record.stage);
  const [before, next] = [STAGES[place - 1], STAGES[place + 1]];
  const held = record.held_until * 1_000 > Date.now();
  const open = (/** @type {object} */ preset) => changeDialog({ api, path, view, preset, changed });
  const undo = last?.from && (() => rollbackDialog({ api, path, view, changed }));
  return [
    last?.action === "step-back" &&
      h("p", { class: "notice" }, `The guard stepped back from ${last.from?.stage} to ${last.to.stage} at ${time(last.at)}: `, h("bdi", null, last.why)),
    h("ol", { class: "ladder" }, STAGES.map((one) => h("li", { "aria-current": one === record.stage && "step" }, one))),
    h(
      "div",
      { class: "row" },
      next && h("button", { type: "button", class: "main", onclick: () => open({ stage: next, percent: next === "shadow" ? 100 : 1 }) }, `Step forward to ${next}`),
      record.cohort.percent < 100 && h("button", { type: "button", onclick: () => open({ percent: wider(record.cohort.percent) }) }, "Widen"),
      before && h("button", { type: "button", onclick: () => open({ stage: before, percent: 100 }) }, `Step back to ${before}`),
      h("button", { type: "button", onclick: () => open({}) }, "Change…"),
      h("button", { type: "button", disabled: !undo, onclick: undo }, "Roll back the last change"),
    ),
    undo && h("p", { class: "hint" }, `Rolling back leads to ${last.from.stage} for ${cohort(last.from.cohort)}: what was before #${last.number} (${last.action}).`),
    facts([
      ["For", cohort(record.cohort)],
      ["Version", version],
      ["Guard", record.budgets.enabled ? "on" : "off"],
      ["Held until", held ? `${new Date(record.held_until * 1_000).toLocaleString()}: the guard stepped back` : "not held"],
      ["A WebSocket silences the streams of", record.fallback_scope === "user" ? "the whole user" : "its own page or app"],
      ["Copied to old servers", record.mirror ?? "as the server is set"],
      ["SSE deprecated", second(record.deprecated_at)],
      ["SSE ends", second(record.sunset_at)],
      ["Brownouts", record.brownouts.map((one) => `${second(one.at)} ${one.percent} %`).join(", ") || "none"],
      ["Page about the move", record.link || "none"],
      ["Last change", last ? [`${time(last.at)} by `, h("bdi", null, last.who), ": ", h("bdi", null, last.why)] : "none"],
    ]),
  ];
}

/** The next rung of the ladder (`dualcast migrate plan`). @param {number} percent */
const wider = (percent) => [1, 10, 50].find((rung) => rung > percent) ?? 100;

/** One side of a changed setting, quota or key. @param {any} value */
function told(value) {
  if (value === null) return "none";
  if (Array.isArray(value)) return value.join(", ") || "none";
  return typeof value === "object" ? [value.algorithm, value.kid, value.fingerprint].filter(Boolean).join(" ") : String(value);
}

function audit(page, older, ask) {
  const rows = page.entries.map((one) => [
    String(one.number),
    time(one.at),
    one.who,
    one.action,
    [
      !one.from && h("div", null, one.to.stage),
      ...[...(one.from ? difference(one.from, one.to) : []), ...(one.changes ?? []).map((change) => [change.field, told(change.from), told(change.to)])]
        .slice(0, 12)
        .map(([name, old, now]) => h("div", null, `${name}: `, h("bdi", null, short(old, 80)), " → ", h("bdi", null, short(now, 80)))),
    ],
    one.why,
  ]);
  return [
    table("Audit", ["#", "When", "Who", "What", "Change", "Why"], rows, "Nothing was changed."),
    h(
      "div",
      { class: "row" },
      older > 0 && h("button", { type: "button", onclick: () => ask(0) }, "Newest"),
      page.next > 0 && h("button", { type: "button", onclick: () => ask(page.next) }, "Older"),
    ),
  ];
}
