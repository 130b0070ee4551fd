import { AppHeader, DualcastProvider, EN, useChannel, usePresence } from "@dualcast/react";
import "@dualcast/react/style.css";
import { StrictMode, createElement as h, useState } from "react";
import { createRoot } from "react-dom/client";
import "./app.css";

/** @typedef {{server: string, token: string, topic: string, room: string}} Session */

/** Asks who the user is. @param {{onLogin: (session: Session) => void}} props */
function Login({ onLogin }) {
  /** @param {import("react").FormEvent<HTMLFormElement>} event */
  const submit = (event) => {
    event.preventDefault();
    onLogin(/** @type {Session} */ (Object.fromEntries(new FormData(event.currentTarget))));
  };
  return h(
    "form",
    { onSubmit: submit, autoComplete: "off" },
    h("label", null, "Server", h("input", { name: "server", type: "url", required: true, defaultValue: "http://localhost:8000" })),
    h("label", null, "Token", h("input", { name: "token", type: "password", required: true, maxLength: 8_000, spellCheck: false })),
    h("label", null, "Topic", h("input", { name: "topic", required: true, defaultValue: "news" })),
    h("label", null, "Room", h("input", { name: "room", required: true, defaultValue: "lobby" })),
    h("button", null, "Log in"),
  );
}

/** What is said on a topic. @param {{name: string}} props */
function Topic({ name }) {
  const { status, events, gap, error, clear } = useChannel(`topic:${name}`, { limit: 20 });
  return h(
    "section",
    { id: "topic", "aria-label": "Topic" },
    h("h2", null, name, " ", h("small", null, error ? "not allowed" : status)),
    gap && h("p", { role: "alert" }, `Something was missed (${gap.reason}). `, h("button", { onClick: clear }, "Begin anew")),
    h("ol", { "aria-live": "polite" }, events.map(({ id, event, data }) => h("li", { key: id }, `${event} ${JSON.stringify(data)}`))),
  );
}

/** Who is here. @param {{name: string}} props */
function Room({ name }) {
  const { status, members, count, error } = usePresence(name);
  const here = status === "ready" ? `${count} here` : error ? "not allowed" : status;
  return h(
    "section",
    { id: "room", "aria-label": "Room" },
    h("h2", null, name, " ", h("small", { role: "status" }, here)),
    h("ul", null, members.slice(0, 50).map(({ user }) => h("li", { key: user }, user))),
  );
}

function App() {
  const [session, setSession] = useState(/** @type {Session | null} */ (null));
  if (!session) return h("main", null, h("h1", null, "Live"), h(Login, { onLogin: setSession }));
  const options = { url: session.server, getToken: () => session.token };
  return h(
    DualcastProvider,
    { options, key: session.token }, // another user: another client
    h(AppHeader, { title: "Live", controls: true, labels: EN }, h("button", { onClick: () => setSession(null) }, "Log out")),
    h("main", null, h(Topic, { name: session.topic }), h(Room, { name: session.room })),
  );
}

createRoot(/** @type {HTMLElement} */ (document.getElementById("root"))).render(h(StrictMode, null, h(App)));
