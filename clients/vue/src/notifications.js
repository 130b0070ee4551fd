import { hubOf, inboxActions, LOADING, NO_BADGE } from "@dualcast/client/stores";
import { computed, toValue } from "vue";
import { useStore, useStoreOf, whileAlive } from "./lifetime.js";
import { useDualcast } from "./plugin.js";

/** @typedef {import("@dualcast/client").DualcastClient} DualcastClient */
/**
 * @typedef {import("@dualcast/client/stores").ListOptions & {
 *   client?: DualcastClient,
 *   enabled?: import("vue").MaybeRefOrGetter<boolean>,
 *   onNotification?: (data: any, publication: import("@dualcast/client/stores").Publication) => void,
 * }} NotificationsOptions `enabled` false: counters only, no list; `onNotification`: each that comes in, also those that
 *   no inbox keeps
 */

/** The counters of the own inbox, with what is under way, in refs; 0 while they are not known. @param {{client?: DualcastClient}} [options] */
export function useUnreadCount(options = {}) {
  const badge = useStore(hubOf(useDualcast(options.client)).inbox.badge, NO_BADGE);
  return { unread: computed(() => badge.value.unread), unseen: computed(() => badge.value.unseen) };
}

/**
 * The own inbox: the newest notifications, the counters, and what a user does with them. Components that ask for the
 * same have the same list. The refs follow what other pages and devices of the user do. Marking shows at once; when
 * the server refuses it is taken back, the promise gives false, and `actionError` says why.
 * @param {NotificationsOptions} [options] read once, but for `enabled`
 */
export function useNotifications(options = {}) {
  const client = useDualcast(options.client);
  const { onNotification, enabled = true } = options;
  const { inbox } = hubOf(client);
  const list = inbox.list(options);
  const view = useStoreOf(() => toValue(enabled), () => list.store, LOADING);
  if (onNotification) {
    whileAlive(() => client.on("notification", (publication) => onNotification(publication.data, publication)));
  }
  return {
    notifications: computed(() => view.value.notifications),
    ...useUnreadCount(options),
    /** `error`: nothing could be loaded yet. */
    status: computed(() => view.value.status),
    loading: computed(() => view.value.loading),
    loadingMore: computed(() => view.value.loadingMore),
    stale: computed(() => view.value.stale),
    error: computed(() => view.value.error),
    actionError: useStore(inbox.failure),
    hasMore: computed(() => view.value.hasMore),
    ...inboxActions(inbox),
    loadMore: list.loadMore,
    reload: list.reload,
  };
}
