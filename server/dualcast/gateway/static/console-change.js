// The two dialogs that move a tenant: what will change is shown, a reason is asked for, and the version that was
// looked at goes along (If-Match), so that nobody overwrites what somebody else did meanwhile.

import { words } from "./console-api.js";
import { fill, h, say } from "./console-dom.js";
import { recordForm } from "./console-record.js";
import { difference, short } from "./console-text.js";

/**
 * @typedef {object} Change
 * @property {import("./console-api.js").Api} api @property {string} path of the tenant
 * @property {any} view the answer of `GET …/migration` that is changed
 * @property {() => void} changed the tenant is another one, or may be
 * @property {{stage?: string, percent?: number}} [preset]
 */

/** Any change of the record. @param {Change} change */
export function changeDialog({ api, path, view, preset = {}, changed }) {
  const { record } = view;
  const form = recordForm({ ...record, stage: preset.stage ?? record.stage, cohort: { ...record.cohort, percent: preset.percent ?? record.cohort.percent } }, record.stage);
  dialog(`Change ${view.tenant}`, view, form.body, changed, {
    wanted: () => form.read(),
    send: ({ held_until: _, ...wanted }, why, force) => api.send("PUT", `${path}/migration`, { ...wanted, why, force }, view.version),
  });
}

/** Back to the record before the last change. @param {Change} change */
export function rollbackDialog({ api, path, view, changed }) {
  const { last, record } = view;
  const about = h("p", null, `Undoes #${last.number} of ${last.who}: ${short(last.why, 200)}`);
  dialog(`Undo the last change of ${view.tenant}`, view, about, changed, {
    wanted: () => ({ ...last.from, held_until: record.held_until }),
    send: (_, why, force) => api.send("POST", `${path}/migration/rollback`, { why, force }, view.version),
  });
}

/**
 * @param {string} title @param {any} view @param {Node} body @param {() => void} changed
 * @param {{wanted: () => any, send: (wanted: any, why: string, force: boolean) => Promise<any>}} act `wanted` throws
 *   an Error in words for what cannot be meant
 */
function dialog(title, view, body, changed, { wanted, send }) {
  const why = h("textarea", { id: "why", rows: 2, maxlength: 500, required: true });
  const force = h("input", { id: "force", type: "checkbox" });
  const told = h("div", { role: "alert" });
  const go = h("button", { class: "main" }, "Review");
  const review = h("div", { class: "review" });
  /** What was reviewed; null: not yet. @type {any} */
  let ready = null;

  const back = () => {
    ready = null;
    go.textContent = "Review";
    fill(review);
    fill(told);
  };
  const refuse = (/** @type {any[]} */ ...text) => fill(told, h("p", { class: "refusal" }, text));

  function prepare() {
    let found;
    try {
      found = wanted();
    } catch (error) {
      return refuse(error.message);
    }
    const changes = difference(view.record, found);
    if (!changes.length) return refuse("This changes nothing.");
    fill(review, h("h4", null, "This will change, within a second, while everybody stays connected:"), h("ul", null, changes.map(([name, old, now]) => h("li", null, h("code", null, name), `: ${short(old, 300)} → `, h("b", null, short(now, 300))))));
    ready = found;
    go.textContent = "Change it";
    review.scrollIntoView({ block: "nearest" });
    say(`${changes.length} changes to confirm`);
  }

  async function confirm() {
    go.disabled = true;
    try {
      const done = await send(ready, why.value.trim(), force.checked);
      box.close();
      say(`${done.tenant}: ${done.record.stage}, version ${done.version}`);
      changed();
    } catch (error) {
      if (error.code === "version-conflict") {
        refuse(
          `Somebody else has changed this tenant since you looked at it (version ${view.version}). Nothing was changed by you. (${error.status}) `,
          h("button", { type: "button", onclick: () => (box.close(), changed()) }, "Show what it is now"),
        );
      } else if (error.code === "guard-hold" || error.code === "sunset-passed") {
        refuse(`${words(error)}. Force does it all the same.`);
      } else refuse(words(error));
    }
    go.disabled = false;
  }

  const form = h(
    "form",
    {
      novalidate: true, // a field in a closed part of the form is opened first
      oninput: () => ready && back(),
      onsubmit: (/** @type {Event} */ event) => {
        event.preventDefault();
        fill(told);
        const wrong = form.querySelector(":invalid");
        if (wrong) {
          const part = wrong.closest("details");
          if (part) part.open = true;
          form.reportValidity();
        } else if (!why.value.trim()) refuse("Say why: it goes into the audit.");
        else if (ready) void confirm();
        else prepare();
      },
    },
    h("h3", { id: "dialog-title" }, title),
    body,
    h("label", { for: "why" }, "Why (for the audit)"),
    why,
    h("p", null, force, " ", h("label", { for: "force" }, "Force: although the guard holds, or the sunset has passed")),
    review,
    told,
    h("div", { class: "row" }, go, h("button", { type: "button", onclick: () => box.close() }, "Cancel")),
  );
  const box = /** @type {HTMLDialogElement} */ (h("dialog", { "aria-labelledby": "dialog-title", onclose: () => box.remove() }, form));
  document.body.append(box);
  box.showModal();
}
