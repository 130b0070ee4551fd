// A page made of parts, for the tests in a browser: `start(options, parts)`, `show(parts)`, `stop()`.

import {
  AppHeader,
  DualcastProvider,
  EN,
  NotificationBell,
  WebSocketStatus,
  useChannel,
  useConnectionStatus,
  useDualcast,
  useNotifications,
  usePresence,
} from "@dualcast/react";
import { DualcastClient } from "@dualcast/client";
import "@dualcast/react/style.css";
import { StrictMode, createElement as h, version } from "react";
import { createRoot } from "react-dom/client";

const FAST = { spread: 100, settle: 500, probe: 300, probeCap: 1500, first: 100, cap: 1000, greet: 1500 };

/** Timers of the page that run now, but for React's own, which are older. */
const timers = new Set();
const { setTimeout: set, clearTimeout: clear, setInterval: every } = window;
window.setTimeout = (run, ms, ...rest) => {
  const timer = set((...given) => {
    timers.delete(timer);
    run(...given);
  }, ms, ...rest);
  timers.add(timer);
  return timer;
};
window.clearTimeout = (timer) => {
  timers.delete(timer);
  clear(timer);
};
window.setInterval = (...given) => {
  const timer = every(...given);
  timers.add(timer);
  return timer;
};
window.clearInterval = window.clearTimeout;

Object.assign(window, { timers, version, feeds: {}, heard: [], presences: {}, statuses: [], opened: [], shown: [] });

const PARTS = {
  header: (props) => h(AppHeader, { title: "Shop", ...props }),
  status: (props) => h(WebSocketStatus, props),
  english: () => h(AppHeader, { title: "Shop", labels: EN, controls: true }),
  bell: (props) => h(NotificationBell, { ...props, onOpenItem: (item, event) => (event.preventDefault(), window.opened.push(item.id)) }),
  custom: () => h(NotificationBell, { labels: EN, renderItem: (item, { markRead }) => h("button", { className: "own", onClick: markRead }, item.title) }),
  list: List,
  feed: Feed,
  presence: Presence,
  client: Client,
};

function Client() {
  window.client = useDualcast();
  window.statuses.push(useConnectionStatus().connected);
  return null;
}

function List({ name = "inbox", ...options }) {
  const inbox = (window[name] = useNotifications(options));
  for (const { state } of inbox.notifications) window.shown.push(state);
  return h("ul", { id: name }, inbox.notifications.map(({ id, title, state }) => h("li", { key: id, "data-state": state }, title)));
}

function Feed({ name, channel, ...options }) {
  const feed = (window.feeds[name] = useChannel(channel, { ...options, onEvent: ({ data }) => window.heard.push(`${name} ${data}`) }));
  return h("output", { id: name }, String(feed.last?.data ?? ""));
}

function Presence({ channel }) {
  window.presences[channel] = usePresence(channel);
  return null;
}

let root = null;
let options = {};
let connect = true;
let given;

window.show = (...parts) => {
  const children = parts.map(({ part, key, ...props }, at) => h(PARTS[part], { key: key ?? `${part}${at}`, ...props }));
  root.render(h(StrictMode, null, h(DualcastProvider, { client: given, options, connect }, ...children)));
};

/** A client of the application's own, connected by it, in place of the provider's. */
window.give = (token, ...parts) => {
  given = new DualcastClient({ getToken: () => token, timing: FAST });
  given.connect();
  window.show(...parts);
};

/** `token`: of the user; the rest are options of the client. */
window.start = ({ token, auto = true, ...more }, ...parts) => {
  connect = auto;
  options = { getToken: () => token, timing: FAST, ...more };
  root ??= createRoot(document.getElementById("root"));
  window.show(...parts);
};

window.stop = () => {
  root.unmount();
  root = null;
};

document.body.dataset.ready = "yes";
