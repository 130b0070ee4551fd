import { hubOf, isUnread, KEYS, labelsOf, moveFocus, SeenMarks } from "@dualcast/client/stores";
import { defineComponent, h, nextTick, onDeactivated, onScopeDispose, ref, watch } from "vue";
import { notificationItem } from "./notification_item.js";
import { useNotifications } from "./notifications.js";
import { useDualcast } from "./plugin.js";

/** @typedef {import("@dualcast/client/stores").Notification} Notification */
/** @typedef {import("@dualcast/client/stores").Labels} Labels */

/** Shown in full up to here. */
const MOST_SHOWN = 99;
/** Between a list and the edge of the window, in px. */
const EDGE = 8;
let bells = 0;

/**
 * A button with the number of unread notifications, and the list behind it, which is loaded when it is first opened:
 * what is shown counts as seen, what is opened as read. Emits `open-item(item, event)`; a router calls
 * `event.preventDefault()`. Slot `item` (`{item, markRead, remove, open}`): the inside of each `<li>`. Keyboard: the list
 * opens by Enter or Space, arrows, Home and End go through it, Escape closes it and gives the focus back.
 */
export const NotificationBell = defineComponent({
  name: "NotificationBell",
  props: {
    client: { type: /** @type {import("vue").PropType<import("@dualcast/client").DualcastClient>} */ (Object), default: undefined },
    /** Items of one load, and those kept. */
    limit: { type: Number, default: undefined },
    max: { type: Number, default: undefined },
    /** Only of these types in the list; the badge counts all. */
    kinds: { type: /** @type {import("vue").PropType<readonly string[]>} */ (Array), default: undefined },
    /** What the open list shows counts as seen. */
    markSeen: { type: Boolean, default: true },
    /** `EN`, or own words in place of some. */
    labels: { type: /** @type {import("vue").PropType<Partial<Labels>>} */ (Object), default: undefined },
  },
  emits: { openItem: (/** @type {Notification} */ _item, /** @type {MouseEvent} */ _event) => true },
  setup(props, { emit, slots }) {
    const client = useDualcast(props.client);
    const used = ref(false);
    const inbox = useNotifications({ client, limit: props.limit, max: props.max, kinds: props.kinds, enabled: used });
    const { notifications: items, unread, loading, error, hasMore } = inbox;
    const isOpen = ref(false);
    const refused = ref(false);
    const root = ref(/** @type {HTMLElement | null} */ (null));
    const button = ref(/** @type {HTMLElement | null} */ (null));
    const panel = ref(/** @type {HTMLElement | null} */ (null));
    const id = `dc-bell-${(bells += 1)}`; // only in what a browser renders

    /** @param {Promise<boolean>} work */
    const attempt = async (work) => {
      nextTick(() => {
        // A button that has done its work is gone: the focus stays in the list.
        if (isOpen.value && !root.value?.contains(document.activeElement)) panel.value?.focus();
      });
      refused.value = !(await work); // taken back already: say so
    };
    const close = (focus = true) => {
      isOpen.value = false;
      if (focus) button.value?.focus();
    };
    /** @param {Notification} item @returns {import("./notification_item.js").ItemActions} */
    const actionsOf = (item) => ({
      markRead: () => void attempt(inbox.markRead(item.id)),
      remove: () => void attempt(inbox.remove(item.id)),
      open(event) {
        if (isUnread(item)) void attempt(inbox.markRead(item.id));
        emit("openItem", item, event);
      },
    });

    const seen = new SeenMarks(hubOf(client).inbox);
    watch([isOpen, items], () => seen.show(isOpen.value && props.markSeen ? items.value : null));
    onScopeDispose(() => seen.show(null));
    /** @param {Event} event */
    const outside = (event) => {
      if (root.value && !event.composedPath().includes(root.value)) close(false); // also inside of a shadow root
    };
    let stopWatching = () => {};
    watch(isOpen, async (open) => {
      stopWatching();
      stopWatching = () => {};
      refused.value = false;
      if (!open) return;
      document.addEventListener("pointerdown", outside);
      stopWatching = () => document.removeEventListener("pointerdown", outside);
      await nextTick();
      if (panel.value) keepInside(panel.value);
      panel.value?.focus();
    });
    onScopeDispose(() => stopWatching());
    onDeactivated(() => close(false)); // what is kept alive is not shown: nothing in it is seen

    /** @param {Notification} item @param {Labels} words */
    const entry = (item, words) => {
      const actions = actionsOf(item);
      const inside = slots.item?.({ item, ...actions }) ?? notificationItem(item, actions, words);
      return h("li", { key: item.id, class: "dc-item", "data-id": item.id, "data-state": item.state, "data-level": item.level }, inside);
    };

    /** @param {Labels} words */
    const list = (words) =>
      h(
        "div",
        {
          ref: panel,
          id,
          class: "dc-panel",
          role: "dialog",
          "aria-label": words.notifications,
          "aria-busy": loading.value,
          tabindex: -1,
        },
        [
          h("div", { class: "dc-panel-head" }, [
            h("strong", words.notifications),
            unread.value > 0 &&
              h("button", { type: "button", class: "dc-button", onClick: () => attempt(inbox.markRead("all")) }, words.markAllRead),
          ]),
          h("p", { class: "dc-error", role: "alert" }, refused.value ? words.actionFailed : ""),
          h("div", { class: "dc-panel-body" }, [
            items.value.length ? h("ul", { class: "dc-list", role: "list" }, items.value.map((item) => entry(item, words))) : null,
            loading.value && h("p", { class: "dc-empty" }, words.loading),
            error.value &&
              h("div", { class: "dc-error" }, [
                h("span", words.failed),
                h("button", { type: "button", class: "dc-button", onClick: inbox.reload }, words.retry),
              ]),
            !items.value.length && !loading.value && !error.value && h("p", { class: "dc-empty" }, words.empty),
            hasMore.value &&
              !loading.value &&
              h("button", { type: "button", class: "dc-button dc-more", onClick: inbox.loadMore }, words.loadMore),
          ]),
        ],
      );

    return () => {
      const words = labelsOf(props.labels);
      const count = unread.value;
      const name = count ? `${words.notifications}, ${words.unread(count)}` : words.notifications;
      return h(
        "div",
        {
          ref: root,
          class: "dc-bell",
          lang: words.lang,
          onKeydown(/** @type {KeyboardEvent} */ event) {
            if (event.key === "Escape" && isOpen.value) {
              event.stopPropagation();
              close();
            } else if (panel.value && KEYS.includes(event.key) && event.target instanceof Node && panel.value.contains(event.target)) {
              if (moveFocus(panel.value, event.key)) event.preventDefault();
            }
          },
          onFocusout(/** @type {FocusEvent} */ { relatedTarget }) {
            if (relatedTarget instanceof Node && !root.value?.contains(relatedTarget)) close(false);
          },
        },
        [
          h(
            "button",
            {
              ref: button,
              type: "button",
              class: "dc-bell-button",
              "aria-label": name,
              "aria-haspopup": "dialog",
              "aria-expanded": isOpen.value,
              "aria-controls": isOpen.value ? id : undefined,
              onClick: () => (isOpen.value ? close() : (used.value = isOpen.value = true)),
            },
            [
              bell(),
              count > 0 &&
                h("span", { class: "dc-badge", "aria-hidden": "true" }, count > MOST_SHOWN ? `${MOST_SHOWN}+` : count),
            ],
          ),
          h("span", { class: "dc-hidden", role: "status" }, count ? words.unread(count) : ""),
          isOpen.value && list(words),
        ],
      );
    };
  },
});

/** A bell may stand anywhere: its list moves into the window. @param {HTMLElement} element */
function keepInside(element) {
  const { left, right } = element.getBoundingClientRect();
  const { clientWidth } = document.documentElement;
  const by = Math.max(EDGE - left, Math.min(0, clientWidth - EDGE - right));
  if (by) element.style.translate = `${by}px`;
}

const bell = () =>
  h("svg", { viewBox: "0 0 24 24", width: 24, height: 24, fill: "currentColor", "aria-hidden": "true" }, [
    h("path", { d: "M12 22a2.5 2.5 0 0 0 2.5-2.5h-5A2.5 2.5 0 0 0 12 22Zm7-6v-5a7 7 0 0 0-5.5-6.8V3.5a1.5 1.5 0 0 0-3 0v.7A7 7 0 0 0 5 11v5l-2 2v1h18v-1Z" }),
  ]);
