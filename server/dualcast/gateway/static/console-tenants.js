// Every tenant for operators; for admins the own one.

import { words } from "./console-api.js";
import { fill, h, table } from "./console-dom.js";
import { cohort } from "./console-text.js";

const PAGE = 100;
const ID = /^[a-z0-9-]{1,63}$/;

/** @param {string} id */
const link = (id) => h("a", { href: `#tenants/${encodeURIComponent(id)}` }, id);

/** @param {HTMLElement} body @param {import("./console.js").Context} context @returns {string} the title */
export function tenants(body, { api, role, me, live, leaving }) {
  if (role === "user") {
    fill(body, h("p", { class: "notice" }, "Tenants are shown to operators and to admins of a tenant. Your token has neither role, so all you can see here is your own connection."));
    return "Tenants";
  }
  const list = h("div", { class: "panel" }, h("p", null, "Loading…"));
  fill(body, goTo(), list);
  if (role === "admin") own(list, me, live, leaving);
  else void all(list, api);
  return "Tenants";
}

function goTo() {
  const field = h("input", { id: "tenant", maxlength: 63, pattern: "[a-z0-9\\-]+", autocapitalize: "off", spellcheck: "false", required: true });
  const submit = (/** @type {Event} */ event) => {
    event.preventDefault();
    if (ID.test(field.value)) location.hash = `#tenants/${encodeURIComponent(field.value)}`;
  };
  return h("form", { class: "panel row", onsubmit: submit }, h("label", { for: "tenant" }, "Tenant "), field, h("button", null, "Show"));
}

/** The server says at the connection whose it is; the token may. */
function own(list, me, live, leaving) {
  const show = (/** @type {string} */ tenant) => fill(list, h("p", null, "You are an admin of the tenant ", link(tenant), "."));
  if (me.tenant) return show(me.tenant);
  fill(list, h("p", null, "Your tenant is shown as soon as the server has told its name."));
  leaving(live.client.on("welcome", ({ tenant }) => show(tenant)));
  if (live.greeted) show(live.greeted);
}

/** @param {HTMLElement} list @param {import("./console-api.js").Api} api */
async function all(list, api) {
  const rows = /** @type {any[][]} */ ([]);
  /** @param {string} after */
  async function load(after) {
    try {
      const page = await api.get(`/v1/tenants?limit=${PAGE}&after=${encodeURIComponent(after)}`);
      for (const one of page.tenants) {
        rows.push([link(one.id), one.stage, cohort({ percent: one.percent }), String(one.version), String(one.keys.length)]);
      }
      fill(list, shown(), page.next && more(page.next));
    } catch (error) {
      fill(list, rows.length > 0 && shown(), h("p", { class: "refusal", role: "alert" }, words(error)), more(after));
    }
    if (after) list.querySelector("button")?.focus(); // the one that was pressed is gone
  }
  const shown = () => table("Tenants", ["Tenant", "Stage", "For", "Version", "Keys"], rows, "There is no tenant.");
  /** @param {string} after */
  const more = (after) => h("button", { type: "button", onclick: (event) => (event.target.disabled = true) && load(after) }, after ? "More tenants" : "Try again");
  await load("");
}
