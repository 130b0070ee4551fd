// The two dialogs that move a tenant: what will change is shown, a reason is asked for, and the version that was
// looked at goes along (If-Match), so that nobody overwrites what somebody else did meanwhile.

import { words } from "./console-api.js";
import { fill, h, say } from "./console-dom.js";
import { recordForm } from "./console-record.js";
import { difference, moves, short } from "./console-text.js";

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
  const about = h("p", null, `Undoes #${last.number} of `, h("bdi", null, last.who), ": ", h("bdi", null, short(last.why, 200)));
  dialog(`Roll back the last change of ${view.tenant}`, view, about, changed, {
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
  const cancel = h("button", { type: "button", onclick: () => box.close() }, "Cancel");
  const review = h("div", { class: "review" });
  /** What was reviewed; null: not yet. @type {any} */
  let ready = null;
  /** An attempt was not answered: it may be this page that changed the tenant. */
  let doubtful = false;

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
    fill(review, h("h4", null, "This will change, within a second, while everybody stays connected:"), h("ul", null, changes.map(([name, old, now]) => h("li", null, h("code", null, name), ": ", h("bdi", null, short(old, 300)), " → ", h("b", null, short(now, 300))))), moves(view.record, found).map((text) => h("p", null, text)));
    ready = found;
    go.textContent = "Change it";
    review.scrollIntoView({ block: "nearest" });
    say(`${changes.length} changes to confirm`);
  }

  async function confirm() {
    go.disabled = cancel.disabled = true;
    const look = h("button", { type: "button", onclick: () => (box.close(), changed()) }, "Show what it is now");
    try {
      const done = await send(ready, why.value.trim(), force.checked);
      box.close();
      say(`${done.tenant}: ${done.record.stage}, version ${done.version}`);
      changed();
    } catch (error) {
      if (error.open) {
        doubtful = true;
        refuse(`${words(error)} The change may have been made, or not. Asking once more does no harm. `, look);
      } else if (error.code === "version-conflict") {
        const what = doubtful
          ? "This tenant has been changed since you looked at it, perhaps by your own first attempt."
          : "Somebody else has changed this tenant since you looked at it. Nothing was changed by you.";
        refuse(`${what} You looked at version ${view.version}. (${error.status}) `, look);
      } else if (error.code === "guard-hold" || error.code === "sunset-passed") {
        refuse(`${words(error)}. Force does it all the same.`);
      } else refuse(words(error));
    }
    go.disabled = cancel.disabled = false;
  }

  const form = h(
    "form",
    {
      novalidate: true, // a field in a closed part of the form is opened first
      oninput: () => ready && back(),
      // The second click of a double click, or a key held down, is no consent to what nobody has read yet.
      onclick: (/** @type {MouseEvent} */ event) => event.target === go && event.detail > 1 && event.preventDefault(),
      onkeydown: (/** @type {KeyboardEvent} */ event) => event.key === "Enter" && event.repeat && event.target.tagName !== "TEXTAREA" && event.preventDefault(),
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
    h("div", { class: "row" }, go, cancel),
  );
  const box = /** @type {HTMLDialogElement} */ (h("dialog", { "aria-labelledby": "dialog-title", onclose: () => box.remove() }, form));
  document.body.append(box);
  box.showModal();
}
