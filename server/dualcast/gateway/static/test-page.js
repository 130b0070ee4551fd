// The test page: whose connections these are, a tab for each contract, and one stream beside them.

import { ACTIONS } from "./test-actions.js";
import { CONTRACTS, STREAMS } from "./test-contracts.js";
import { SocketLine, StreamLine } from "./test-lines.js";
import { Pane } from "./test-pane.js";

const DEMO_USER = "demo-user";
const DEMO_TOKEN = "demo-token";
const DEMO_ADMIN = "admin";
const byId = (id) => document.getElementById(id);
const server = await (await fetch("/websocket-test/facts.json")).json();
const remembered = new Map();
const answers = byId("answer");
let current = null;

/** The claims of a JWT, unverified: only to show whose it is. */
function claims(text) {
  try {
    const body = text.split(".")[1].replaceAll("-", "+").replaceAll("_", "/");
    return JSON.parse(new TextDecoder().decode(Uint8Array.from(atob(body), (c) => c.charCodeAt(0))));
  } catch {
    return {};
  }
}

const isReal = (token) => token.split(".").length === 3;
const subOf = (token) => String(claims(token).sub ?? (token === DEMO_ADMIN ? "admin" : DEMO_USER));

function tokenOf(who) {
  const token = byId("token").value.trim();
  return who === "admin" ? byId("publisher").value.trim() || token : token;
}

/** A real token, for the own API: the publisher's, else the user's; "" when both are demo tokens. */
const backendToken = () => [tokenOf("admin"), tokenOf("user")].find(isReal) ?? "";

async function call(method, path, body, as) {
  const token = as === "backend" ? backendToken() : tokenOf(as);
  const headers = token ? { authorization: `Bearer ${token}` } : {};
  if (body !== null && !(body instanceof FormData)) headers["content-type"] = "application/json";
  const sent = body === null || body instanceof FormData ? body : JSON.stringify(body);
  const answer = await fetch(path, { method, headers, body: sent });
  const text = await answer.text();
  if (!answer.ok) throw new Error(`${answer.status} ${text}`);
  return JSON.parse(text);
}

/** What contracts and actions may ask of the page; `contract` is theirs. */
function pageOf(contract) {
  return {
    get user() {
      return byId("user").value.trim();
    },
    get publisher() {
      return subOf(tokenOf("admin"));
    },
    field: (name) => byId(`field-${name}`).value.trim(),
    fresh: (name) => (byId(`field-${name}`).value = `${name}-${Math.random().toString(36).slice(2, 8)}`),
    remember: (name, value) => remembered.set(name, value),
    recall: (name) => remembered.get(name),
    send: (frame) => contract.pane.say(JSON.stringify(frame)),
    watch: (socket, stream) => {
      if (socket) contract.pane.connect(socket);
      if (stream) streams.connect(stream);
    },
    /** Notifications are to arrive: away from single tasks. */
    listen: () => Promise.all([contract.pane.listen(), streams.listen()]),
    call,
    publish: (channel, type, data) => call("POST", "/v1/publish", { channel, type, data }, "backend"),
  };
}

/** The address of an endpoint, with what it wants in its query. */
async function address(endpoint, to, cursor) {
  const url = new URL(endpoint.path(to), location.origin);
  for (const [name, value] of Object.entries(endpoint.query ?? {})) url.searchParams.set(name, value);
  if (endpoint.ticket) {
    const { ticket } = await call("POST", "/v1/tickets", { transport: "sse" }, "user");
    url.searchParams.set("ticket", ticket);
    if (cursor) url.searchParams.set("cursor", cursor);
  } else if (!endpoint.anonymous && tokenOf("user")) url.searchParams.set("token", tokenOf("user"));
  return url.href;
}

const withUrl = (to) => (endpoint) => ({ ...endpoint, url: (cursor) => address(endpoint, to, cursor) });
const withText = (to) => (example) => ({ label: example.label, text: () => example.text(to) });

function makeContract(contract) {
  const to = pageOf(contract);
  const tab = document.createElement("button");
  const light = document.createElement("span");
  light.className = "light";
  light.setAttribute("aria-hidden", "true");
  Object.assign(tab, { type: "button", id: `tab-${contract.id}` });
  tab.setAttribute("role", "tab");
  tab.setAttribute("aria-controls", "panel");
  tab.append(light, ` ${contract.id}`);
  tab.addEventListener("click", () => show(contract));
  byId("tabs").append(tab);

  const box = document.createElement("div");
  box.className = "publish";
  for (const [name, value] of Object.entries(contract.fields)) {
    const label = document.createElement("label");
    label.append(`${name} `, Object.assign(document.createElement("input"), { id: `field-${name}`, value, maxLength: 200 }));
    box.append(label);
  }
  for (const action of ACTIONS[contract.id]) if (server.dev || !action.dev) box.append(actionButton(action, to, contract));
  byId("publish").append(box);

  contract.tab = tab;
  contract.box = box;
  contract.pane = new Pane({
    title: "WebSocket",
    line: (told) => new SocketLine(told),
    endpoints: contract.sockets.map(withUrl(to)),
    examples: contract.examples.map(withText(to)),
    ping: contract.ping,
    onstate: (name) => {
      light.dataset.state = name;
      tab.title = `WebSocket ${name}`;
    },
  });
  contract.pane.root.id = `pane-${contract.id}`;
  byId("sockets").append(contract.pane.root);
}

function actionButton(action, to, contract) {
  const button = Object.assign(document.createElement("button"), { type: "button", textContent: action.label });
  button.dataset.as = action.as;
  button.addEventListener("click", async () => {
    button.disabled = true;
    answers.textContent = `${action.label} …`;
    try {
      const answer = JSON.stringify(await action.run(to));
      const unseen = [contract.pane, streams].every((pane) => pane.root.dataset.state !== "open");
      answers.textContent = `${action.label}: ${answer}${unseen ? " (nothing is connected to see it arrive)" : ""}`;
    } catch (error) {
      answers.textContent = error instanceof TypeError ? "the server cannot be reached" : `${action.label}: ${error.message}`;
    } finally {
      button.disabled = false;
      allow();
    }
  });
  return button;
}

function show(contract) {
  current = contract;
  for (const other of CONTRACTS) {
    const chosen = other === contract;
    other.tab.setAttribute("aria-selected", String(chosen));
    other.tab.tabIndex = chosen ? 0 : -1;
    other.box.hidden = !chosen;
    other.pane.root.hidden = !chosen;
  }
  byId("panel").setAttribute("aria-labelledby", contract.tab.id);
  byId("about").textContent = contract.about;
  answers.textContent = "";
  history.replaceState(null, "", `${location.pathname}?tab=${contract.id}${location.hash}`);
}

/** Buttons of the own API are of no use without a real token. */
function allow() {
  const may = backendToken() !== "";
  for (const button of document.querySelectorAll('[data-as="backend"]')) {
    button.disabled = !may;
    button.title = may ? "" : "needs a real token with the role publisher";
  }
  const demo = server.dev && !isReal(tokenOf("user"));
  byId("hint").textContent = demo
    ? "Demo tokens: on rooms and progress you are the user above, elsewhere whoever you last were there (at first demo-user). Grey buttons need a real token: serve --dev prints one; open this page with #token=… in its address."
    : "";
}

const given = new URLSearchParams(location.hash.slice(1)).get("token") ?? "";
byId("token").value = given || (server.dev ? DEMO_TOKEN : "");
byId("publisher").value = server.dev ? DEMO_ADMIN : given;
byId("user").value = subOf(byId("token").value);
byId("token").addEventListener("change", () => {
  if (isReal(tokenOf("user"))) byId("user").value = subOf(tokenOf("user"));
});
byId("identity").addEventListener("input", allow);
byId("identity").addEventListener("submit", (event) => event.preventDefault());

for (const contract of CONTRACTS) makeContract(contract);
const streams = new Pane({
  title: "EventSource",
  line: (told) => new StreamLine(told),
  endpoints: STREAMS.map(withUrl(pageOf({}))),
});
streams.root.id = "pane-streams";
byId("streams").append(streams.root);

// A page that was left may be kept for "back", with its connections: the user would stay online for minutes.
addEventListener("pagehide", () => [streams, ...CONTRACTS.map(({ pane }) => pane)].forEach((pane) => pane.line.close()));
addEventListener("hashchange", () => location.reload()); // another token
byId("tabs").addEventListener("keydown", (event) => {
  const last = CONTRACTS.length - 1;
  const at = CONTRACTS.indexOf(current);
  const next = { ArrowRight: at === last ? 0 : at + 1, ArrowLeft: at === 0 ? last : at - 1, Home: 0, End: last }[event.key];
  if (next === undefined) return;
  event.preventDefault();
  show(CONTRACTS[next]);
  CONTRACTS[next].tab.focus();
});
const asked = new URLSearchParams(location.search).get("tab");
show(CONTRACTS.find((contract) => contract.id === asked) ?? CONTRACTS[0]);
allow();
document.body.dataset.ready = "yes";
