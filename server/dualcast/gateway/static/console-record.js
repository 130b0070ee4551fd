// A stage record as a form: what `dualcast migrate set` and `schedule` can change.

import { h } from "./console-dom.js";

const STAGES = ["sse", "shadow", "fallback", "websocket"];
/** Budget → its title, and whether it can be off. */
const BUDGETS = [
  ["websocket_open_failure_percent", "WebSocket opens that may fail, %", true],
  ["abnormal_close_percent", "Abnormal closes, %", true],
  ["parity_mismatches", "Publications that may not match", true],
  ["reconnects_per_user", "Reconnects per user", true],
  ["lag_p99_ms", "Lag, 99th percentile, ms", true],
  ["window_s", "Measured over, s", false],
  ["min_samples", "Samples it takes", false],
  ["hold_off_s", "Hold after a step back, s", false],
];

let forms = 0;

/**
 * @param {any} record what the fields begin with @param {string} now the stage the tenant is in
 * @returns {{body: HTMLElement, read: () => any}} `read` throws an Error in words
 */
export function recordForm(record, now) {
  const prefix = `record-${(forms += 1)}-`;
  /** @param {string} name @param {string} title @param {HTMLElement} field */
  const labelled = (name, title, field) => {
    field.id = prefix + name;
    return h("p", { class: "field" }, h("label", { for: field.id }, title), field);
  };
  const choice = (/** @type {[string, string][]} */ options, /** @type {string} */ chosen) =>
    h("select", null, options.map(([value, text]) => h("option", { value, selected: value === chosen }, text)));
  const area = (/** @type {string[]} */ lines) => {
    const field = h("textarea", { rows: 2, spellcheck: "false" });
    field.value = lines.join("\n");
    return field;
  };
  const input = (/** @type {string | number} */ value, more = {}) => h("input", { value, ...more });

  const legal = STAGES.slice(0, STAGES.indexOf(now) + 2);
  const stage = choice(legal.map((one) => [one, one]), record.stage);
  const percent = input(record.cohort.percent, { type: "number", min: 0, max: 100, step: "any", required: true });
  const [allow, deny] = [area(record.cohort.allow), area(record.cohort.deny)];
  const scope = choice([["instance", "its own page or app"], ["user", "every one of the user"]], record.fallback_scope);
  const mirror = choice([["", "as the server is set"], ["off", "off"], ["fallback", "fallback"], ["always", "always"]], record.mirror ?? "");
  const guard = h("input", { type: "checkbox", checked: record.budgets.enabled });
  const budgets = BUDGETS.map(([name, title, mayBeOff]) => ({
    name,
    title,
    field: input(record.budgets[name] ?? "", { type: "number", min: 0, step: "any", required: !mayBeOff, placeholder: mayBeOff && "off" }),
  }));
  const [deprecated, sunset] = [moment(record.deprecated_at), moment(record.sunset_at)].map((value) => input(value, { type: "datetime-local" }));
  const link = input(record.link, { maxlength: 2_000, inputmode: "url" });
  const brownouts = area(record.brownouts.map((one) => `${moment(one.at)}Z=${one.percent}`));

  const body = h(
    "div",
    null,
    h("div", { class: "fields" }, labelled("stage", "Stage", stage), labelled("percent", "Percent of the users; the others are a stage back", percent)),
    h("details", null, h("summary", null, "Users by name, scope, old servers"),
      labelled("allow", "Always in, one user id per line", allow),
      labelled("deny", "Never in, one user id per line", deny),
      labelled("scope", "A WebSocket silences the streams of", scope),
      labelled("mirror", "Copy to old servers", mirror)),
    h("details", null, h("summary", null, "Guard and budgets"),
      labelled("guard", "The guard may step back", guard),
      h("div", { class: "fields" }, budgets.map((one) => labelled(one.name, one.title, one.field)))),
    h("details", null, h("summary", null, "The end of SSE (counts in stage websocket)"),
      h("div", { class: "fields" }, labelled("deprecated", "Deprecated from, UTC", deprecated), labelled("sunset", "Ends at, UTC", sunset)),
      labelled("link", "Page about the move", link),
      labelled("brownouts", "Brownouts, one TIME=PERCENT per line, as 2027-03-01T06:00Z=25", brownouts)),
  );

  const read = () => ({
    ...record,
    stage: stage.value,
    cohort: { percent: Number(percent.value), allow: lines(allow.value), deny: lines(deny.value) },
    fallback_scope: scope.value,
    mirror: mirror.value || null,
    budgets: { ...Object.fromEntries(budgets.map(({ name, field }) => [name, field.value === "" ? null : Number(field.value)])), enabled: guard.checked },
    deprecated_at: seconds(deprecated.value, record.deprecated_at),
    sunset_at: seconds(sunset.value, record.sunset_at),
    link: link.value.trim(),
    brownouts: lines(brownouts.value).map(brownout).map((one) => record.brownouts.find((known) => moment(known.at) === moment(one.at) && known.percent === one.percent) ?? one),
  });
  return { body, read };
}

/** @param {string} text */
const lines = (text) => text.split("\n").map((one) => one.trim()).filter(Boolean);

/** Unix seconds as a field has them, to the minute in UTC; 0: "". @param {number} at */
const moment = (at) => (at ? new Date(at * 1_000).toISOString().slice(0, 16) : "");

/** The other way; what stands there to the minute is not changed by looking at it. @param {string} text @param {number} before */
function seconds(text, before) {
  if (text === moment(before)) return before;
  return text ? Math.floor(Date.parse(`${text}Z`) / 1_000) : 0;
}

/** @param {string} text */
function brownout(text) {
  const [at, share] = text.split("=").map((part) => part.trim());
  const time = Date.parse(/(Z|[+-]\d\d:?\d\d)$/.test(at) ? at : `${at}Z`);
  const percent = Number(share);
  if (!Number.isFinite(time) || !share || !(percent >= 0 && percent <= 100)) throw new Error(`“${text}” is not TIME=PERCENT, as 2027-03-01T06:00Z=25.`);
  return { at: Math.floor(time / 1_000), percent };
}
