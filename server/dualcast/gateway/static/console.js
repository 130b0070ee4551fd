// The console of operators and admins: signing in, and which view is shown.

import { Api, Refusal, words } from "./console-api.js";
import { connections } from "./console-connections.js";
import { fill, h, say } from "./console-dom.js";
import { health } from "./console-health.js";
import { Live } from "./console-live.js";
import { claims, roleOf, store, stored } from "./console-session.js";
import { tenant } from "./console-tenant.js";
import { tenants } from "./console-tenants.js";

const [who, out, nav, form, field, refused, view] = ["who", "sign-out", "views", "sign-in", "token", "refused", "view"].map(
  (id) => document.getElementById(id),
);

/**
 * What a view is given.
 * @typedef {object} Context
 * @property {Api} api @property {Live} live @property {"operator" | "admin" | "user"} role
 * @property {{user: string, tenant: string, roles: string[]}} me
 * @property {(seconds: number, run: () => void) => void} every while the view is shown and the page is visible
 * @property {(undo: () => void) => void} leaving
 */
/** @type {{api: Api, live: Live, role: string, me: ReturnType<typeof claims>} | null} */
let session = null;
/** What ends with the view that is shown. @type {(() => void)[]} */
let undo = [];
/** Grows with every sign-in and sign-out: what comes back from before is too late. */
let turn = 0;

/** @param {string} token */
async function signIn(token) {
  const mine = (turn += 1);
  const me = claims(token);
  const api = new Api(token, (refusal) => mine === turn && session && signOut(refusal.message));
  form.hidden = true;
  fill(view, h("p", { role: "status" }, "Signing in…"));
  let role;
  try {
    role = await roleOf(api, me.roles);
  } catch (error) {
    if (mine === turn) signOut(words(error), error instanceof Refusal && error.status !== 401);
    return;
  }
  if (mine !== turn) return;
  store(token);
  const live = new Live(token, api);
  session = { api, live, role, me };
  live.start();
  const until = me.exp ? ` · until ${new Date(me.exp * 1_000).toLocaleString()}` : "";
  who.textContent = `${me.tenant ? me.tenant + "/" : ""}${me.user} · ${role}${until}`;
  for (const element of [who, out, nav]) element.hidden = false;
  field.value = refused.textContent = "";
  show();
}

/** @param {string} [why] @param {boolean} [keep] the token may still be good: a reload tries it again */
function signOut(why = "", keep = false) {
  turn += 1;
  leave();
  session?.live.stop();
  session = null;
  if (!keep) store("");
  fill(view);
  for (const element of [who, out, nav]) element.hidden = true;
  form.hidden = false;
  refused.textContent = why;
  field.focus();
}

function leave() {
  for (const end of undo.splice(0)) end();
}

/** What the address asks for: `#tenants/acme` → ["tenants", "acme"]. Anything else, a token above all, is taken out of it. */
function asked() {
  const [name, rest = ""] = location.hash.slice(1).split("/", 2);
  if (!["live", "tenants", "connections", "health"].includes(name)) {
    history.replaceState(null, "", "#live");
    return ["live", ""];
  }
  try {
    return [name, decodeURIComponent(rest)];
  } catch {
    return [name, ""];
  }
}

function show() {
  const [name, rest] = asked();
  if (!session) return;
  leave();
  for (const link of nav.querySelectorAll("a")) {
    if (link.hash === `#${name}`) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  const title = h("h2", { tabindex: -1 });
  const body = h("div");
  fill(view, title, body);
  /** @type {Context} */
  const context = { ...session, every, leaving: (end) => undo.push(end) };
  context.leaving(() => document.querySelector("dialog")?.close()); // it is about what is shown below it
  if (name === "live") title.textContent = session.live.show(body, context);
  else if (name === "connections") title.textContent = connections(body, context);
  else if (name === "health") title.textContent = health(body, context);
  else title.textContent = rest ? tenant(body, context, rest) : tenants(body, context);
  document.title = `${title.textContent} · dualcast console`;
  title.focus({ preventScroll: true });
  say(title.textContent);
}

/** @param {number} seconds @param {() => void} run */
function every(seconds, run) {
  const timer = setInterval(() => document.visibilityState === "visible" && run(), seconds * 1_000);
  undo.push(() => clearInterval(timer));
}

form.addEventListener("submit", (event) => {
  event.preventDefault();
  void signIn(field.value.trim().replace(/^Bearer\s+/i, ""));
});
out.addEventListener("click", () => signOut());
addEventListener("hashchange", show);
asked();
const token = stored();
if (token) void signIn(token);
else signOut();
