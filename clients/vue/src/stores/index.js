import { Feeds } from "./feeds.js";
import { NotificationStore } from "./notification_store.js";

/** @typedef {import("@dualcast/client").DualcastClient} DualcastClient */

/** @type {WeakMap<DualcastClient, {feeds: Feeds, lists: Map<string, NotificationStore>, peers: Set<NotificationStore>}>} */
const stores = new WeakMap();
/** Lists of different options at the same time; more than that are not shared. */
const MOST_LISTS = 16;

/** @param {DualcastClient} client */
function storesOf(client) {
  let found = stores.get(client);
  if (!found) stores.set(client, (found = { feeds: new Feeds(client), lists: new Map(), peers: new Set() }));
  return found;
}

/** The counted channels of a client. @param {DualcastClient} client */
export const feedsOf = (client) => storesOf(client).feeds;

/**
 * The inbox of a client: one for equal options.
 * @param {DualcastClient} client @param {import("./notification_store.js").ListOptions} [options]
 */
export function notificationsOf(client, { limit, max, states, kinds } = {}) {
  const { lists, peers } = storesOf(client);
  const key = JSON.stringify([limit, max, states, kinds]);
  let store = lists.get(key);
  if (!store) {
    store = new NotificationStore(client, { limit, max, states, kinds }, peers);
    for (const [old, { watched }] of lists) if (lists.size >= MOST_LISTS && !watched) lists.delete(old);
    if (lists.size < MOST_LISTS) lists.set(key, store);
  }
  return store;
}
