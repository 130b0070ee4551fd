// A real server and clients of it, for one file of tests.

import { after, afterEach, before, beforeEach } from "node:test";
import { DualcastClient } from "../../../clients/core/src/index.js";
import { Server, WebSocket, token, until } from "../core/support/server.js";

export const CHANNELS = ["topic:*", "presence:*"];
/** Of this test: the server, a user of its own, and what is undone after it. */
export const world = { server: /** @type {any} */ (null), user: "", ends: [] };

let users = 0;
before(async () => (world.server = await Server.start()));
after(() => world.server.close());
beforeEach(() => (world.user = `user-${(users += 1)}`));
afterEach(() => world.ends.splice(0).forEach((end) => end()));

/** A client that counts its listeners. */
export function client(sub = world.user, more = {}) {
  const options = { url: world.server.url, getToken: () => token(sub, { channels: CHANNELS }), WebSocket, storage: null, transports: ["websocket"] };
  const made = new DualcastClient({ ...options, ...more });
  const { on } = made;
  made.listeners = 0;
  made.on = (type, listener) => {
    made.listeners += 1;
    const off = on.call(made, type, listener);
    let there = true;
    return () => {
      if (there) made.listeners -= 1;
      there = false;
      off();
    };
  };
  world.ends.push(() => made.disconnect());
  return made;
}
export const live = (made) => until(() => made.status.status === "live", "live");
