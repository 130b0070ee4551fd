// Who is connected: `GET /v1/connections`, page by page.

import { words } from "./console-api.js";
import { fill, h, table } from "./console-dom.js";
import { number, short, time } from "./console-text.js";

const PAGE = 100;
const COUNTED = 1_000;
const MOST_PAGES = 10;

/** @param {HTMLElement} body @param {import("./console.js").Context} context @returns {string} the title */
export function connections(body, { api, role, leaving }) {
  const field = h("input", { id: "user", type: "search", maxlength: 256, autocapitalize: "off", spellcheck: "false" });
  const list = h("div", { class: "panel", "aria-busy": "true" });
  const sums = h("p", { class: "hint", role: "status" });
  /** Where each page began, to go back. */
  let starts = [""];
  /** Grows with every question: an answer that another has overtaken is not shown. */
  let turn = 0;
  leaving(() => (turn = Infinity));

  /** @param {string[]} [from] where each page begins, the one to show last */
  async function load(from = starts) {
    const mine = (turn += 1);
    const query = new URLSearchParams({ limit: String(PAGE), after: from.at(-1) ?? "" });
    if (role !== "user" && field.value.trim()) query.set("user", field.value.trim());
    list.setAttribute("aria-busy", "true");
    try {
      const { connections: found, next } = await api.get(`/v1/connections?${query}`);
      if (mine !== turn) return;
      starts = from;
      const back = () => load(from.slice(0, -1));
      const on = () => load([...from, next]);
      fill(
        list,
        table(
          "Connections",
          ["User", "Transport", "Contract", "Device", "Since", "Node", "Instance"],
          found.map((one) => [one.user, one.transport, one.dialect, one.device, time(one.connected_at), one.node, short(one.instance ?? "", 12)]),
          "Nobody is connected.",
        ),
        h(
          "div",
          { class: "row" },
          h("button", { type: "button", disabled: from.length < 2, onclick: back }, "Back"),
          h("button", { type: "button", disabled: !next, onclick: on }, "Next"),
          h("button", { type: "button", onclick: () => load() }, "Load again"),
          h("span", { class: "hint" }, `Page ${from.length}, ${counts(found)}`),
        ),
      );
    } catch (error) {
      if (mine !== turn) return;
      fill(list, h("p", { class: "refusal", role: "alert" }, words(error)), h("button", { type: "button", onclick: () => load(from) }, "Load again"));
    }
    list.setAttribute("aria-busy", "false");
  }

  async function count(/** @type {Event} */ event) {
    const button = /** @type {HTMLButtonElement} */ (event.target);
    button.disabled = true;
    const every = [];
    try {
      let after = "";
      for (let page = 0; page < MOST_PAGES && turn !== Infinity; page += 1) {
        sums.textContent = `Counting… ${number(every.length)}`;
        const found = await api.get(`/v1/connections?limit=${COUNTED}&after=${encodeURIComponent(after)}`);
        every.push(...found.connections);
        after = found.next;
        if (!after) break;
      }
      const nodes = new Set(every.map((one) => one.node)).size;
      const least = after ? "at least " : "";
      sums.textContent = `${least}${number(every.length)} connections on ${least}${number(nodes)} nodes: ${counts(every)}`;
    } catch (error) {
      sums.textContent = words(error);
    }
    button.disabled = false;
  }

  const submit = (/** @type {Event} */ event) => {
    event.preventDefault();
    void load([""]);
  };
  fill(
    body,
    role === "user" && h("p", { class: "notice" }, "Your token sees your own connections. Admins see those of their tenant."),
    h(
      "form",
      { class: "panel", onsubmit: submit },
      h(
        "div",
        { class: "row" },
        role !== "user" && [h("label", { for: "user" }, "User "), field, h("button", null, "Show")],
        h("button", { type: "button", onclick: count }, "Count all"),
      ),
      sums,
    ),
    list,
  );
  void load();
  return "Connections";
}

/** @param {{transport: string}[]} found */
function counts(found) {
  const by = new Map();
  for (const { transport } of found) by.set(transport, (by.get(transport) ?? 0) + 1);
  return [...by].sort().map(([transport, many]) => `${transport} ${number(many)}`).join(", ") || "none";
}
