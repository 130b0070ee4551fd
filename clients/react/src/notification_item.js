import { isUnread, safeLink, timeText } from "@dualcast/client/stores";
import { createElement as h } from "react";

/** @typedef {import("@dualcast/client/stores").Notification} Notification */
/**
 * @typedef {object} ItemActions
 * @property {() => void} markRead
 * @property {() => void} remove
 * @property {(event: import("react").MouseEvent) => void} open as a click on the title
 */

/** @param {string} word @param {string} title @param {(event: import("react").MouseEvent) => void} onClick */
const icon = (word, title, onClick) =>
  /** @type {const} */ ({ type: "button", className: "dc-icon", onClick, "aria-label": `${word}: ${title}`, title: word });

/**
 * One notification: its title is a link where it has a safe one.
 * @param {{item: Notification, actions: ItemActions, words: import("@dualcast/client/stores").Labels}} props
 */
export function NotificationItem({ item, actions, words }) {
  const link = safeLink(item.link);
  const unread = isUnread(item);
  const markRead = (/** @type {import("react").MouseEvent} */ { currentTarget }) => {
    // Before its button goes.
    /** @type {HTMLElement | null | undefined} */ (currentTarget.closest("li")?.querySelector("[data-dc-main]"))?.focus();
    actions.markRead();
  };
  const main = { className: "dc-item-title", "data-dc-main": "", onClick: actions.open };
  return h(
    "div",
    { className: "dc-item-body" },
    h(
      "div",
      { className: "dc-item-text" },
      unread && h("span", { className: "dc-item-new" }, h("span", { className: "dc-hidden" }, words.isNew)),
      link ? h("a", { ...main, href: link }, item.title) : h("button", { ...main, type: "button" }, item.title),
      item.content && h("p", { className: "dc-item-content" }, item.content),
      h("time", { className: "dc-item-time", dateTime: item.created_at }, timeText(item.created_at, words.lang)),
    ),
    h(
      "div",
      { className: "dc-item-actions" },
      unread &&
        h(
          "button",
          icon(words.markRead, item.title, markRead),
          "✓",
        ),
      h(
        "button",
        icon(words.remove, item.title, actions.remove),
        "×",
      ),
    ),
  );
}
