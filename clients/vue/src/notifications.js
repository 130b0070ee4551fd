import { computed, shallowRef } from "vue";
import { useStore, whileAlive } from "./lifetime.js";
import { useDualcast } from "./plugin.js";
import { notificationsOf } from "./stores/index.js";

/** @typedef {import("@dualcast/client").DualcastClient} DualcastClient */
/** @typedef {import("./types.js").Publication} Publication */
/** @typedef {string | readonly string[] | "all"} Ids one id, several, or all there are */
/**
 * @typedef {import("./stores/notification_store.js").ListOptions & {
 *   client?: DualcastClient,
 *   onNotification?: (data: any, publication: Publication) => void,
 * }} NotificationsOptions `onNotification`: each that comes in, also those that no inbox keeps
 */

/**
 * The own inbox: the newest notifications, the counters, and what a user does with them. Components that ask for the
 * same have the same list. The refs follow what other pages and devices of the user do. Marking shows at once; when
 * the server refuses it is taken back, the promise gives false, and `actionError` says why.
 * @param {NotificationsOptions} [options] read once
 */
export function useNotifications(options = {}) {
  const client = useDualcast(options.client);
  const { onNotification } = options;
  const store = notificationsOf(client, options);
  const view = useStore(store);
  const actionError = shallowRef(/** @type {Error | null} of the last mark, a DualcastError */ (null));
  if (onNotification) {
    whileAlive(() => client.on("notification", (publication) => onNotification(publication.data, publication)));
  }
  /** @param {Ids} ids */
  const list = (ids) => (typeof ids === "string" && ids !== "all" ? [ids] : /** @type {readonly string[] | "all"} */ (ids));
  /** @param {"read" | "seen" | "unread" | "archived" | "deleted"} action */
  const marking = (action) => async (/** @type {Ids} */ ids) => {
    actionError.value = await store.mark(action, list(ids)).then(
      () => null,
      (error) => error,
    );
    return !actionError.value;
  };
  return {
    notifications: computed(() => view.value.items),
    unread: computed(() => view.value.unread),
    unseen: computed(() => view.value.unseen),
    /** `error`: nothing could be loaded yet. */
    status: computed(() => (view.value.loaded ? "ready" : view.value.error ? "error" : "loading")),
    loading: computed(() => view.value.loading),
    error: computed(() => view.value.error),
    actionError,
    hasMore: computed(() => view.value.more),
    reload: store.reload,
    loadMore: store.loadMore,
    markRead: marking("read"),
    markSeen: (/** @type {Ids} */ ids = "all") => marking("seen")(ids),
    markUnread: marking("unread"),
    archive: marking("archived"),
    remove: marking("deleted"),
  };
}
