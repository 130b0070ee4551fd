// What the tests of the Vue package share: its own Vue and Pinia, components without a DOM, a socket by hand.

import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";

export const PACKAGE = new URL("../../../clients/vue/", import.meta.url);
const require = createRequire(new URL("package.json", PACKAGE));

export const vue = require("vue");
export const pinia = await import(pathToFileURL(require.resolve("pinia/package.json").replace("package.json", "dist/pinia.js")));
/** The package. */
export const dualcast = await import(new URL("src/index.js", PACKAGE));
export const legacy = await import(new URL("src/pinia.js", PACKAGE));
export const esbuild = require("esbuild");
export const { renderToString } = require("vue/server-renderer");

/** A renderer of nothing: components live, mount and unmount as in a page. */
const node = (text = "") => ({ text, children: [], parent: null });
const { createApp } = vue.createRenderer({
  createElement: node,
  createText: node,
  createComment: node,
  setText: (one, text) => (one.text = text),
  setElementText: (one, text) => (one.text = text),
  insert(child, parent) {
    child.parent = parent;
    parent.children.push(child);
  },
  remove: (child) => (child.parent.children = child.parent.children.filter((one) => one !== child)),
  parentNode: (one) => one.parent,
  nextSibling: () => null,
  patchProp: () => {},
});

/** Mounts a component whose `setup` is given. `plugins` are used first. @returns {{app, out, unmount}} */
export function mounted(setup, ...plugins) {
  let out;
  const app = createApp({ setup: () => ((out = setup()), () => null) });
  for (const plugin of plugins) app.use(plugin);
  app.mount(node());
  return { app, out, unmount: () => app.unmount() };
}

/** Runs in a scope of its own, outside of any component. */
export function scoped(run) {
  const scope = vue.effectScope(true);
  return { out: scope.run(run), stop: () => scope.stop() };
}

/** Sockets of `made`, in the order they were opened, which the test opens, feeds and closes. */
export function sockets() {
  const made = [];
  class FakeSocket {
    constructor(url) {
      Object.assign(this, { url, sent: [], closed: false, onopen: null, onclose: null, onerror: null, onmessage: null });
      made.push(this);
    }
    send(text) {
      this.sent.push(text);
    }
    close() {
      this.closed = true;
      queueMicrotask(() => this.onclose?.({ code: 1000 })); // as a real one: later
    }
    open() {
      this.onopen?.({});
    }
    frame(frame) {
      this.onmessage?.({ data: typeof frame === "string" ? frame : JSON.stringify(frame) });
    }
  }
  return { made, FakeSocket };
}

/** A log: what was said, by level. */
export function logger() {
  const said = { log: [], warn: [], error: [] };
  const say = (level) => (...words) => said[level].push(words.join(" "));
  return { said, log: { log: say("log"), warn: say("warn"), error: say("error") } };
}

/** Puts a global in place for one test. */
export function stub(t, name, value) {
  const before = Object.getOwnPropertyDescriptor(globalThis, name);
  Object.defineProperty(globalThis, name, { value, configurable: true, writable: true });
  t.after(() => (before ? Object.defineProperty(globalThis, name, before) : delete globalThis[name]));
}
