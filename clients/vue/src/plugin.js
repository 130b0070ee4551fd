import { DualcastClient } from "@dualcast/client";
import { hubOf } from "@dualcast/client/stores";
import { hasInjectionContext, inject } from "vue";
import { isClient } from "./client.js";

/** @typedef {import("./types.js").Options} Options */
/**
 * @typedef {object} PluginOptions
 * @property {boolean} [connect] connect when the app is made. Default: in a browser, with a client made here; never
 *   on a server. With a client of the caller's: it is also disconnected then
 */

/** @type {import("vue").InjectionKey<DualcastClient>} */
export const DUALCAST = Symbol("dualcast");

const isPage = () => typeof window !== "undefined" && typeof document !== "undefined";

/** A client that can be made where there is no page: it is never connected there. @param {Options} options */
function made(options) {
  if (isPage() || /^https?:/.test(options.url ?? "")) return new DualcastClient(options);
  // A server renders for a page whose address it need not know.
  return new DualcastClient({ ...options, url: new URL(options.url ?? "/", "http://server.invalid").href, share: undefined });
}

/**
 * The plugin: `app.use(createDualcast({ url, getToken }))`. Makes a client, or takes one, for every component of the
 * app. The connection ends when the last app that uses it is unmounted; a client of the caller's is left alone unless
 * `connect` is true. Rendering on a server: make one per request, as the app itself.
 * @param {Options | DualcastClient} [source] @param {PluginOptions} [given]
 * @returns {import("vue").Plugin<[]> & {client: DualcastClient}}
 */
export function createDualcast(source = {}, given = {}) {
  const own = !isClient(source);
  const client = own ? made(source) : source;
  const connects = given.connect ?? (own && isPage());
  let apps = 0;
  return {
    client,
    install(app) {
      const release = hubOf(client).channels.watch();
      app.provide(DUALCAST, client);
      apps += 1;
      if (connects) client.connect();
      onUnmount(app, () => {
        release();
        apps -= 1;
        if (!apps && (own || connects)) client.disconnect();
      });
    },
  };
}

/** `app.onUnmount` is there since Vue 3.5. @param {import("vue").App} app @param {() => void} run once */
function onUnmount(app, run) {
  if (app.onUnmount) return app.onUnmount(run);
  const { unmount } = app;
  app.unmount = () => {
    unmount();
    run();
  };
}

/**
 * The client of the app. Throws outside of `setup()`, a store or `app.runWithContext()`, and without the plugin.
 * @param {DualcastClient} [client] in place of the app's
 */
export function useDualcast(client) {
  const found = client ?? (hasInjectionContext() ? inject(DUALCAST, null) : null);
  if (!found) throw new Error("no dualcast client: app.use(createDualcast({ url, getToken })) is missing");
  return found;
}
