import { createDualcast, EN, NotificationBell, useChannel, usePresence, WebSocketStatus } from "@dualcast/vue";
import "@dualcast/vue/style.css";
import { createApp, defineComponent, h } from "vue";
import "./app.css";

/** @typedef {{server: string, token: string, topic: string, room: string}} Session */

/** Asks who the user is. */
const Login = defineComponent({
  emits: ["login"],
  setup(_, { emit }) {
    /** @param {Event} event */
    const submit = (event) => {
      event.preventDefault();
      emit("login", Object.fromEntries(new FormData(/** @type {HTMLFormElement} */ (event.target))));
    };
    return () =>
      h("form", { onSubmit: submit, autocomplete: "off" }, [
        h("label", ["Server", h("input", { name: "server", type: "url", required: true, value: "http://localhost:8000" })]),
        h("label", ["Token", h("input", { name: "token", type: "password", required: true, maxlength: 8_000, spellcheck: false })]),
        h("label", ["Topic", h("input", { name: "topic", required: true, value: "news" })]),
        h("label", ["Room", h("input", { name: "room", required: true, value: "lobby" })]),
        h("button", "Log in"),
      ]);
  },
});

/** What is said on a topic. */
const Topic = defineComponent({
  props: { name: { type: String, required: true } },
  setup(props) {
    const { events, status, gap, error, clear } = useChannel(() => `topic:${props.name}`, { limit: 20 });
    return () =>
      h("section", { id: "topic", "aria-label": "Topic" }, [
        h("h2", [`${props.name} `, h("small", error.value ? "not allowed" : status.value)]),
        gap.value && h("p", { role: "alert" }, [`Something was missed (${gap.value.reason}). `, h("button", { onClick: clear }, "Begin anew")]),
        h("ol", { "aria-live": "polite" }, events.value.map(({ id, event, data }) => h("li", { key: id }, `${event} ${JSON.stringify(data)}`))),
      ]);
  },
});

/** Who is here. */
const Room = defineComponent({
  props: { name: { type: String, required: true } },
  setup(props) {
    const { status, members, count, error } = usePresence(() => props.name);
    const here = () => (status.value === "ready" ? `${count.value} here` : error.value ? "not allowed" : status.value);
    return () =>
      h("section", { id: "room", "aria-label": "Room" }, [
        h("h2", [`${props.name} `, h("small", { role: "status" }, here())]),
        h("ul", members.value.slice(0, 50).map(({ user }) => h("li", { key: user }, user))),
      ]);
  },
});

const Live = defineComponent({
  props: { topic: { type: String, required: true }, room: { type: String, required: true } },
  emits: ["logout"],
  setup: (props, { emit }) => () => [
    h("header", [
      h("strong", "Live"),
      h("button", { onClick: () => emit("logout") }, "Log out"),
      h(WebSocketStatus, { labels: EN }),
      h(NotificationBell, { labels: EN }),
    ]),
    h("main", [h(Topic, { name: props.topic }), h(Room, { name: props.room })]),
  ],
});

// An app for each session: the plugin's client ends with it.

/** @type {import("vue").App | null} */
let shown = null;

/** @param {import("vue").App} app */
function show(app) {
  shown?.unmount();
  shown = app;
  app.mount("#root");
}

const ask = () => show(createApp(() => h("main", [h("h1", "Live"), h(Login, { onLogin: enter })])));

/** @param {Session} session */
function enter({ server, token, topic, room }) {
  const dualcast = createDualcast({ url: server, getToken: () => token });
  show(createApp(() => h(Live, { topic, room, onLogout: ask })).use(dualcast));
}

ask();
