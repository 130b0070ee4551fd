// The package as it is shipped: types, contents, limits of its modules, and what happens without a page.

import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { existsSync, mkdtempSync, readFileSync, readdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { test } from "node:test";
import { PACKAGE, dualcast, legacy, pinia, renderToString, vue } from "./support.js";

const FOLDER = fileURLToPath(PACKAGE);
const read = (name) => readFileSync(join(FOLDER, name), "utf8");
const { createDualcast, NotificationBell, useChannel, useDesktopNotifications, usePresence, WebSocketStatus } = dualcast;

test("strict types hold, and declarations come out", () => {
  const folder = mkdtempSync(join(tmpdir(), "dc-vue-types-"));
  try {
    const tsc = join(FOLDER, "../node_modules/typescript/bin/tsc");
    execFileSync(process.execPath, [tsc, "--declaration", "--emitDeclarationOnly", "--noEmit", "false", "--outDir", folder], { cwd: FOLDER, encoding: "utf8" });
    const found = (name) => readFileSync(join(folder, name), "utf8");
    assert.match(found("index.d.ts"), /createDualcast, useDualcast/);
    assert.match(found("notifications.d.ts"), /notifications: import\("vue"\)\.ComputedRef<readonly/);
    assert.match(found("pinia/websocket_store.d.ts"), /"websocket"/);
  } catch (error) {
    assert.fail(error.stdout || error);
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
});

test("every entry exists; modules are small and import only one another, Vue, Pinia and the client", () => {
  const found = JSON.parse(read("package.json"));
  for (const one of Object.values(found.exports)) {
    const path = one.default ?? one;
    if (!path.includes("*")) assert.ok(existsSync(join(FOLDER, path)), path);
  }
  for (const name of readdirSync(join(FOLDER, "src"), { recursive: true }).filter((one) => one.endsWith(".js"))) {
    const text = read(join("src", name));
    assert.ok(text.split("\n").length <= 301, name);
    for (const [, from] of text.matchAll(/^(?:import|export) .* from "(.*)";$/gm)) {
      const allowed = name.startsWith("pinia") ? /^(\.|vue$|pinia$|@dualcast\/client$)/ : /^(\.|vue$|@dualcast\/client(\/stores)?$)/;
      assert.match(from, allowed, name);
    }
  }
});

test("a server renders what a page begins with, and nothing is left: no connection, timer or listener", async () => {
  const timers = process.getActiveResourcesInfo().length;
  const plugin = createDualcast({ url: "/push" }); // of a page the server knows nothing about
  let listeners = 0;
  const { on } = plugin.client;
  plugin.client.on = (...given) => ((listeners += 1), on.apply(plugin.client, given));
  const App = {
    setup() {
      useChannel("topic:prices");
      usePresence("lobby");
      useDesktopNotifications();
      const store = legacy.useWebSocketStore();
      return () => vue.h("main", [vue.h(WebSocketStatus), vue.h(NotificationBell), store.connected, vue.h(legacy.WebSocketRoot, () => "inside")]);
    },
  };
  const before = listeners;
  const html = await renderToString(vue.createSSRApp(App).use(plugin).use(pinia.createPinia()));
  assert.match(html, /data-status="off"/);
  assert.match(html, /aria-label="通知"/);
  assert.match(html, /inside/);
  assert.equal(plugin.client.status.status, "off");
  assert.equal(listeners - before, 5, "the plugin's own, which go with it");
  assert.deepEqual(plugin.client.channels, []);
  assert.equal(process.getActiveResourcesInfo().length, timers);
});

test("components say the same as those of React, in both languages", async () => {
  const react = await import(new URL("../react/src/index.js", PACKAGE));
  const words = (labels) => Object.entries(labels).map(([name, word]) => [name, typeof word === "function" ? word(3) : word]).sort();
  for (const name of ["EN", "ZH"]) assert.deepEqual(words(dualcast[name]), words(react[name]));
});

test("links of notifications: the web and the own site, nothing that runs", () => {
  for (const link of ["/stocks/1", "https://example.com/a", "page?x#y", "//example.com"]) assert.equal(dualcast.safeLink(link), link);
  for (const link of ["javascript:alert(1)", " JaVaScript:alert(1)", "java\nscript:alert(1)", "data:text/html,x", "http://[", "", "  ", 5, {}, null, undefined]) {
    assert.equal(dualcast.safeLink(link), null);
  }
});
