import { KEYS, SeenMarks, isUnread, labelsOf, moveFocus } from "@dualcast/client/stores";
import { createElement as h, useEffect, useId, useMemo, useRef, useState } from "react";

import { useConnection, useHub } from "./context.js";
import { useNotifications } from "./hooks.js";
import { NotificationItem } from "./notification_item.js";

/** @typedef {import("@dualcast/client/stores").Notification} Notification */
/** @typedef {import("./notification_item.js").ItemActions} ItemActions */
/** @typedef {(item: Notification, actions: ItemActions) => import("react").ReactNode} RenderItem */
/**
 * @typedef {object} NotificationBellProps
 * @property {number} [limit] notifications per page
 * @property {number} [max] most that are kept
 * @property {readonly string[]} [kinds] only of these types in the list; the badge counts all
 * @property {RenderItem} [renderItem] inside of each `<li>`; check links with `safeLink`
 * @property {(item: Notification, event: import("react").MouseEvent) => void} [onOpenItem] a title was chosen; a router
 *   calls `event.preventDefault()`
 * @property {boolean} [markSeen] what the open list shows counts as seen; default true
 * @property {Partial<import("@dualcast/client/stores").Labels>} [labels] `EN` or own words; default Chinese
 * @property {string} [className] beside `dc-bell`
 */

const BELL =
  "M12 22a2.5 2.5 0 0 0 2.45-2h-4.9A2.5 2.5 0 0 0 12 22Zm7-6v-5a7 7 0 0 0-5.5-6.84V3.5a1.5 1.5 0 0 0-3 0v.66" +
  "A7 7 0 0 0 5 11v5l-2 2v1h18v-1Z";

/** A bell with the number of unread notifications, and the list of them. @param {NotificationBellProps} props */
export function NotificationBell(props) {
  const { limit, max, kinds, renderItem, onOpenItem, markSeen = true, labels, className = "" } = props;
  const [open, setOpen] = useState(false);
  const [used, setUsed] = useState(false);
  const inbox = useNotifications({ limit, max, kinds, enabled: used });
  const { connected } = useConnection();
  const words = labelsOf(labels);
  const id = useId();
  const root = useRef(/** @type {HTMLDivElement | null} */ (null));
  const button = useRef(/** @type {HTMLButtonElement | null} */ (null));
  const panel = useRef(/** @type {HTMLDivElement | null} */ (null));

  useEffect(() => {
    if (!open) return;
    panel.current?.focus();
    const outside = (/** @type {Event} */ event) => {
      if (!root.current?.contains(/** @type {Node} */ (event.target))) setOpen(false);
    };
    document.addEventListener("pointerdown", outside);
    return () => document.removeEventListener("pointerdown", outside);
  }, [open]);
  useSeen(open && markSeen ? inbox.notifications : null);

  const toggle = () => {
    setUsed(true);
    setOpen(!open);
  };
  /** @param {import("react").KeyboardEvent} event */
  const onKeyDown = (event) => {
    if (event.key === "Escape" && open) {
      event.stopPropagation();
      setOpen(false);
      button.current?.focus();
    } else if (KEYS.includes(event.key) && panel.current?.contains(/** @type {Node} */ (event.target))) {
      if (moveFocus(panel.current, event.key)) event.preventDefault();
    }
  };
  /** @param {import("react").FocusEvent} event */
  const onBlur = (event) => {
    if (event.relatedTarget && !root.current?.contains(event.relatedTarget)) setOpen(false);
  };
  /** Moves the focus before its button goes. @param {string} key where to */
  const leave = (key) => void (moveFocus(panel.current, key) || panel.current?.focus());
  /** @param {Notification} item @returns {ItemActions} */
  const actionsOf = (item) => ({
    markRead: () => void inbox.markRead(item.id),
    remove: () => {
      leave("ArrowDown");
      void inbox.remove(item.id);
    },
    open: (event) => {
      if (isUnread(item)) void inbox.markRead(item.id);
      onOpenItem?.(item, event);
    },
  });

  const { unread } = inbox;
  const counted = unread ? words.unread(unread) : "";
  const label = counted ? `${words.notifications}, ${counted}` : words.notifications;
  return h(
    "div",
    { className: `dc-bell ${className}`.trim(), ref: root, onKeyDown, onBlur, lang: words.lang },
    h(
      "button",
      {
        type: "button",
        className: "dc-bell-button",
        ref: button,
        onClick: toggle,
        "aria-label": label,
        "aria-haspopup": "dialog",
        "aria-expanded": open,
        "aria-controls": open ? id : undefined,
      },
      h(
        "svg",
        { viewBox: "0 0 24 24", width: 24, height: 24, "aria-hidden": true, fill: "currentColor" },
        h("path", { d: BELL }),
      ),
      unread > 0 && h("span", { className: "dc-badge", "aria-hidden": true }, unread > 99 ? "99+" : unread),
    ),
    h("span", { className: "dc-hidden", role: "status", "aria-live": "polite" }, counted),
    open &&
      h(
        "div",
        { className: "dc-panel", id, role: "dialog", "aria-label": words.notifications, tabIndex: -1, ref: panel },
        h(
          "div",
          { className: "dc-panel-head" },
          h("strong", null, words.notifications),
          h(
            "button",
            // Not `disabled`: a browser takes the focus from such a button, and nobody hears the keys.
            { type: "button", className: "dc-button", "aria-disabled": !unread, onClick: () => unread && void inbox.markRead("all") },
            words.markAllRead,
          ),
        ),
        inbox.actionError && h("p", { className: "dc-error", role: "alert" }, words.actionFailed),
        h(Body, { inbox, words, connected, leave, item: (item) => (renderItem ?? plain(words))(item, actionsOf(item)) }),
      ),
  );
}

/** @param {import("@dualcast/client/stores").Labels} words @returns {RenderItem} */
const plain = (words) => (item, actions) => h(NotificationItem, { item, actions, words });

/**
 * The list, or why there is none.
 * @param {object} props
 * @param {ReturnType<typeof useNotifications>} props.inbox @param {import("@dualcast/client/stores").Labels} props.words
 * @param {boolean} props.connected @param {(key: string) => void} props.leave
 * @param {(item: Notification) => import("react").ReactNode} props.item
 */
function Body({ inbox, words, connected, leave, item }) {
  const { status, notifications, hasMore, loadingMore, error } = inbox;
  const retry = () => {
    leave("");
    void inbox.reload();
  };
  const more = () => {
    leave("End"); // what comes is behind it
    void inbox.loadMore();
  };
  const failed =
    error &&
    h(
      "div",
      { className: "dc-error", role: "alert" },
      h("span", null, words.failed),
      h("button", { type: "button", className: "dc-button", onClick: retry }, words.retry),
    );
  if (status === "error") return failed;
  if (status === "loading") {
    return h("p", { className: "dc-empty", role: "status" }, connected ? words.loading : words.disconnected);
  }
  return h(
    "div",
    { className: "dc-panel-body", "aria-busy": loadingMore },
    failed,
    notifications.length
      ? h(
          "ul",
          { className: "dc-list", role: "list" },
          notifications.map((one) =>
            h("li", { key: one.id, className: "dc-item", "data-state": one.state, "data-level": one.level }, item(one)),
          ),
        )
      : h("p", { className: "dc-empty" }, words.empty),
    hasMore &&
      h(
        "button",
        { type: "button", className: "dc-button dc-more", "aria-disabled": loadingMore, onClick: more },
        loadingMore ? words.loading : words.loadMore,
      ),
  );
}

/** Tells the server what is shown. @param {readonly Notification[] | null} shown */
function useSeen(shown) {
  const { inbox } = useHub();
  const seen = useMemo(() => new SeenMarks(inbox), [inbox]);
  useEffect(() => seen.show(shown), [seen, shown]);
  useEffect(() => () => seen.show(null), [seen]);
}
