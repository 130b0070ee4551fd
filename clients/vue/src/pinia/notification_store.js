import { defineStore } from "pinia";
import { ref } from "vue";

/**
 * @typedef {object} LegacyNotification the eight keys of the older contract (section 3.1)
 * @property {string} id
 * @property {string} type
 * @property {string} title
 * @property {string | null} [content]
 * @property {string | null} [link]
 * @property {string | null} [source]
 * @property {string} created_at
 * @property {"unread" | "read"} status
 */

/** Items kept. */
export const MOST_ITEMS = 200;
let locals = 0;

/** Notifications of this page, newest first, for apps without such a store of their own. */
export const useNotificationStore = defineStore("notification", () => {
  const items = ref(/** @type {LegacyNotification[]} */ ([]));
  const unreadCount = ref(0);

  /**
   * Takes one in. One with the id of another is not counted again; one without title or type is dropped.
   * @param {Partial<LegacyNotification>} given
   */
  function addNotification(given) {
    const { title, type, status = "unread" } = given;
    if (!title || !type) return;
    const id = given.id || `local-${Date.now()}-${(locals += 1)}`;
    if (items.value.some((item) => item.id === id)) return;
    const created_at = given.created_at || new Date().toISOString();
    const { content, link, source } = given;
    items.value = [{ id, type, title, content, link, source, status, created_at }, ...items.value].slice(0, MOST_ITEMS);
    if (status === "unread") unreadCount.value += 1;
  }

  /** @param {string} id */
  function markRead(id) {
    const found = items.value.find((item) => item.id === id);
    if (found?.status !== "unread") return;
    found.status = "read";
    unreadCount.value = Math.max(0, unreadCount.value - 1);
  }

  function markAllRead() {
    for (const item of items.value) item.status = "read";
    unreadCount.value = 0;
  }

  function clear() {
    items.value = [];
    unreadCount.value = 0;
  }

  return { items, unreadCount, addNotification, markRead, markAllRead, clear };
});
