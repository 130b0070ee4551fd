import {
  ChannelFeed,
  LOADING,
  NOTHING,
  NO_BADGE,
  NO_PRESENCE,
  inboxActions,
  isOnline,
  presenceOf,
} from "@dualcast/client/stores";
import { useEffect, useMemo, useSyncExternalStore } from "react";

import { useConnection, useHub } from "./context.js";

const nothing = () => NOTHING;
const loading = () => LOADING;
const nobody = () => NO_PRESENCE;
const noBadge = () => NO_BADGE;
const none = () => null;
const idle = { subscribe: () => () => {}, get: loading };
const noRoom = { subscribe: () => () => {}, get: nobody };

/** The client of the provider. @returns {import("@dualcast/client").DualcastClient} */
export const useDualcast = () => useHub().client;

/** The connection, and whether publications come (`connected`). @returns {import("@dualcast/client/stores").Connection} */
export function useConnectionStatus() {
  useHub();
  return useConnection();
}

/**
 * The counters of the own inbox, with what is under way; 0 while they are not known.
 * @returns {{unread: number, unseen: number}}
 */
export function useUnreadCount() {
  const { badge } = useHub().inbox;
  return useSyncExternalStore(badge.subscribe, badge.get, noBadge);
}

/**
 * An option that is written anew at each render: the same while it says the same.
 * @template T @param {T} value @returns {T}
 */
function useSame(value) {
  const text = JSON.stringify(value) ?? "null";
  return useMemo(() => JSON.parse(text), [text]);
}

/**
 * The own inbox: newest first, page by page, with what comes and changes meanwhile.
 * @param {object} [options]
 * @param {number} [options.limit] notifications per page, 1 to 100; default 20
 * @param {readonly string[]} [options.kinds] only of these types
 * @param {readonly string[]} [options.states] default `unseen`, `seen`, `read`
 * @param {number} [options.max] most that are kept; default 500
 * @param {boolean} [options.enabled] false: counters only, no list; default true
 */
export function useNotifications({ limit, kinds, states, max, enabled = true } = {}) {
  const { inbox } = useHub();
  const [types, shown] = [useSame(kinds), useSame(states)];
  const list = useMemo(
    () => inbox.list({ limit, kinds: types, states: shown, max }),
    [inbox, limit, types, shown, max],
  );
  const { subscribe, get } = enabled ? list.store : idle;
  const view = useSyncExternalStore(subscribe, get, loading);
  const failure = useSyncExternalStore(inbox.failure.subscribe, inbox.failure.get, none);
  const badge = useUnreadCount();
  const actions = useMemo(() => {
    const { loadMore, reload } = list;
    return { ...inboxActions(inbox), loadMore, reload };
  }, [inbox, list]);
  return { ...view, ...badge, actionError: failure, ...actions };
}

/**
 * A channel: its last events, holes, and state. All components of a page share one subscription per channel.
 * @param {string | null | undefined} channel null: none
 * @param {object} [options]
 * @param {readonly string[]} [options.events] only events of these types
 * @param {number} [options.limit] of the list, up to 1,000; default 50
 * @param {(publication: import("@dualcast/client/stores").Publication) => void} [options.onEvent] each event, once
 * @param {(gap: import("@dualcast/client/stores").Gap) => void} [options.onGap]
 */
export function useChannel(channel, { events, limit, onEvent, onGap } = {}) {
  const hub = useHub();
  const types = useSame(events);
  const feed = useMemo(
    () => (channel ? new ChannelFeed(hub, channel, { events: types, limit }) : NO_FEED),
    [hub, channel, types, limit],
  );
  useEffect(() => {
    if (feed === NO_FEED) return;
    feed.onEvent = onEvent;
    feed.onGap = onGap;
  });
  const view = useSyncExternalStore(feed.store.subscribe, feed.store.get, nothing);
  return { ...view, clear: feed.clear };
}

/** @type {Pick<ChannelFeed, "store" | "clear" | "onEvent" | "onGap">} */
const NO_FEED = {
  store: /** @type {any} */ ({ subscribe: () => () => {}, get: nothing }),
  clear() {},
  onEvent: undefined,
  onGap: undefined,
};

/**
 * Who is in a room.
 * @param {string | null | undefined} channel with or without `presence:`; null: none
 */
export function usePresence(channel) {
  const { channels } = useHub();
  const { subscribe, get } = useMemo(() => (channel ? presenceOf(channels, channel) : noRoom), [channels, channel]);
  const view = useSyncExternalStore(subscribe, get, nobody);
  return useMemo(() => ({ ...view, isOnline: (/** @type {string} */ user) => isOnline(view, user) }), [view]);
}
