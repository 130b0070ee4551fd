import { Channels } from "./channels.js";
import { connectionOf } from "./connection.js";
import { Inbox } from "./inbox.js";

/** @typedef {import("../client.js").DualcastClient} DualcastClient */

/** @type {WeakMap<DualcastClient, Hub>} */
const HUBS = new WeakMap();

/** One per client: what all components of a page share of it. Without components it listens to nothing. */
export class Hub {
  #keepers = 0;
  #owners = 0;
  #ours = false;

  /** @param {DualcastClient} client */
  constructor(client) {
    this.client = client;
    this.connection = connectionOf(client);
    this.channels = new Channels(client);
    this.inbox = new Inbox(client);
  }

  /**
   * Connects, unless somebody else has. What it returns disconnects again, when nobody came back at once: React's
   * StrictMode, and a provider that moves in the tree, unmount and mount in one go.
   * @returns {() => void}
   */
  keep() {
    this.#keepers += 1;
    if (this.client.status.status === "off") {
      this.#ours = true;
      this.client.connect();
    }
    return once(() => {
      this.#keepers -= 1;
      queueMicrotask(() => {
        if (this.#keepers || !this.#ours) return;
        this.#ours = false;
        this.#end();
      });
    });
  }

  /** The client has no other owner. @returns {() => void} it has none at all, and is disconnected, whoever connected it */
  own() {
    this.#owners += 1;
    return once(() => {
      this.#owners -= 1;
      queueMicrotask(() => this.#owners || this.#end());
    });
  }

  #end() {
    if (this.client.status.status !== "off") this.client.disconnect();
  }
}

/** The hub of a client. @param {DualcastClient} client */
export function hubOf(client) {
  const hub = HUBS.get(client) ?? new Hub(client);
  HUBS.set(client, hub);
  return hub;
}

/** @param {() => void} run @returns {() => void} */
export function once(run) {
  let done = false;
  return () => {
    if (done) return;
    done = true;
    run();
  };
}
