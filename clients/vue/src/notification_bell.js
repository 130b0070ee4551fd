import { defineComponent, h, nextTick, onDeactivated, onScopeDispose, ref, watch } from "vue";
import { labelsOf } from "./labels.js";
import { safeLink } from "./links.js";
import { useNotifications } from "./notifications.js";
import { isUnread } from "./stores/notification_list.js";

/** @typedef {import("./stores/notification_list.js").Item} Item */
/** @typedef {import("./labels.js").Labels} Labels */

/** Shown in full up to here. */
const MOST_SHOWN = 99;
/** Between a list and the edge of the window, in px. */
const EDGE = 8;
let bells = 0;

/**
 * A button with the number of unread notifications, and the list behind it: what is shown counts as seen, what is
 * opened as read. Emits `open(item)`; where nobody listens a notification's link is an ordinary link. Keyboard: the
 * list opens by Enter or Space and closes by Escape, which gives the focus back.
 */
export const NotificationBell = defineComponent({
  name: "NotificationBell",
  props: {
    client: { type: /** @type {import("vue").PropType<import("@dualcast/client").DualcastClient>} */ (Object), default: undefined },
    /** Items of one load, and those kept. */
    limit: { type: Number, default: 20 },
    max: { type: Number, default: 200 },
    /** `EN`, or own words in place of some. */
    labels: { type: /** @type {import("vue").PropType<Partial<Labels>>} */ (Object), default: undefined },
    /** BCP 47, of the times; default: the browser's. */
    locale: { type: String, default: undefined },
    /** Whether there is a listener: of `@open`, alone or of several. */
    onOpen: { type: /** @type {import("vue").PropType<((item: Item) => void) | ((item: Item) => void)[]>} */ ([Function, Array]), default: undefined },
  },
  emits: { open: (/** @type {Item} */ _) => true },
  setup(props, { emit }) {
    const inbox = useNotifications({ client: props.client, limit: props.limit, max: props.max });
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
    /** @param {Item} item */
    const choose = (item) => {
      if (isUnread(item)) attempt(inbox.markRead(item.id));
      if (!props.onOpen) return;
      close();
      emit("open", item);
    };

    // What is in the list while it is open has been seen; a refusal of that is nobody's business.
    let told = new Set();
    watch([isOpen, items], () => {
      const unseen = isOpen.value ? items.value.filter(({ state }) => state === "unseen").map((item) => item.id) : [];
      const ids = unseen.filter((one) => !told.has(one)); // what was refused is not asked for again and again
      told = new Set(items.value.map((item) => item.id).filter((one) => isOpen.value && (told.has(one) || ids.includes(one))));
      if (ids.length) inbox.markSeen(ids);
    });
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

    /** @param {Item} item @param {Labels} words */
    const entry = (item, words) => {
      const link = safeLink(item.link);
      const fresh = isUnread(item);
      const inside = [
        h("span", { class: "dc-item-title" }, [fresh && h("span", { class: "dc-hidden" }, `${words.isNew}: `), item.title]),
        item.content ? h("span", { class: "dc-item-content", dir: "auto" }, item.content) : null,
        h("time", { class: "dc-item-time", datetime: item.created_at }, timeOf(item.created_at, props.locale)),
      ];
      const acts = { class: "dc-item-main", dir: "auto", onClick: () => choose(item) };
      return h("li", { key: item.id, class: ["dc-item", fresh && "dc-item-unread"], "data-id": item.id }, [
        link && !props.onOpen ? h("a", { ...acts, href: link }, inside) : h("button", { ...acts, type: "button" }, inside),
        h("span", { class: "dc-item-actions" }, [
          fresh && action("✓", `${words.markRead}: ${item.title}`, () => attempt(inbox.markRead(item.id))),
          action("×", `${words.remove}: ${item.title}`, () => attempt(inbox.remove(item.id))),
        ]),
      ]);
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
            h("h2", { class: "dc-panel-title" }, words.notifications),
            unread.value > 0 &&
              h("button", { type: "button", class: "dc-button", onClick: () => attempt(inbox.markRead("all")) }, words.markAllRead),
          ]),
          h("p", { class: "dc-note", role: "alert" }, refused.value ? words.actionFailed : ""),
          items.value.length ? h("ul", { class: "dc-list", role: "list" }, items.value.map((item) => entry(item, words))) : null,
          loading.value && h("p", { class: "dc-note" }, words.loading),
          error.value &&
            h("p", { class: "dc-note" }, [
              `${words.failed} `,
              h("button", { type: "button", class: "dc-button", onClick: inbox.reload }, words.retry),
            ]),
          !items.value.length && !loading.value && !error.value && h("p", { class: "dc-note" }, words.empty),
          hasMore.value &&
            !loading.value &&
            h("button", { type: "button", class: "dc-button dc-more", onClick: inbox.loadMore }, words.loadMore),
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
            if (event.key !== "Escape" || !isOpen.value) return;
            event.stopPropagation();
            close();
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
              onClick: () => (isOpen.value ? close() : (isOpen.value = true)),
            },
            [
              bell(),
              count > 0 &&
                h("span", { class: "dc-bell-count", "aria-hidden": "true" }, count > MOST_SHOWN ? `${MOST_SHOWN}+` : count),
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

/** @param {string} text @param {string} name @param {() => void} onClick */
const action = (text, name, onClick) =>
  h("button", { type: "button", class: "dc-icon-button", "aria-label": name, title: name, onClick }, text);

/** @param {string} time RFC 3339 @param {string} [locale] */
function timeOf(time, locale) {
  const date = new Date(time);
  return Number.isNaN(date.getTime()) ? "" : date.toLocaleString(locale, { dateStyle: "medium", timeStyle: "short" });
}
