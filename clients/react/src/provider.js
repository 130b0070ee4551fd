import { DualcastClient } from "@dualcast/client";
import { hubOf } from "@dualcast/client/stores";
import { createElement, useEffect, useState } from "react";

import { DualcastContext } from "./context.js";

/** @typedef {ConstructorParameters<typeof DualcastClient>[0]} ClientOptions */

/** @param {DualcastClient | undefined} client @param {ClientOptions} options */
function hubFor(client, options) {
  if (client) return hubOf(client);
  if (globalThis.location) return hubOf(new DualcastClient(options));
  // On a server nothing connects, and a relative URL has no page to be relative to.
  const url = new URL(options?.url ?? "/", "http://localhost").href;
  return hubOf(new DualcastClient({ ...options, url, storage: null }));
}

/**
 * Gives hooks and components below it a client. It is connected while the provider is mounted; a client that was
 * connected before is left connected.
 * @param {object} props
 * @param {DualcastClient} [props.client]
 * @param {ClientOptions} [props.options] in place of a client: of the first render, later ones change nothing (give the
 *   provider another `key` for another user)
 * @param {boolean} [props.connect] false: not before somebody calls `client.connect()`; default true
 * @param {import("react").ReactNode} [props.children]
 */
export function DualcastProvider({ client, options, connect = true, children }) {
  const [held, hold] = useState(() => hubFor(client, options));
  let hub = held;
  if (client && client !== held.client) {
    hub = hubOf(client);
    hold(hub);
  }
  const own = !client;
  useEffect(() => hub.channels.watch(), [hub]);
  useEffect(() => (connect ? hub.keep() : undefined), [hub, connect]);
  useEffect(() => (own ? hub.own() : undefined), [hub, own]);
  return createElement(DualcastContext.Provider, { value: hub }, children);
}
