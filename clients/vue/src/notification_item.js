import { isUnread, safeLink, timeText } from "@dualcast/client/stores";
import { h } from "vue";

/** @typedef {import("@dualcast/client/stores").Notification} Notification */
/**
 * @typedef {object} ItemActions
 * @property {() => void} markRead
 * @property {() => void} remove
 * @property {(event: MouseEvent) => void} open as a click on the title
 */

/** @param {string} word @param {string} title @param {string} sign @param {() => void} onClick */
const icon = (word, title, sign, onClick) =>
  h("button", { type: "button", class: "dc-icon", "aria-label": `${word}: ${title}`, title: word, onClick }, sign);

/**
 * What a bell shows of one notification: its title is a link where it has a safe one.
 * @param {Notification} item @param {ItemActions} actions @param {import("@dualcast/client/stores").Labels} words
 */
export function notificationItem(item, actions, words) {
  const link = safeLink(item.link);
  const unread = isUnread(item);
  const main = { class: "dc-item-title", dir: "auto", "data-dc-main": "", onClick: actions.open };
  return h("div", { class: "dc-item-body" }, [
    h("div", { class: "dc-item-text" }, [
      unread && h("span", { class: "dc-item-new" }, h("span", { class: "dc-hidden" }, words.isNew)),
      link ? h("a", { ...main, href: link }, item.title) : h("button", { ...main, type: "button" }, item.title),
      item.content ? h("p", { class: "dc-item-content", dir: "auto" }, item.content) : null,
      h("time", { class: "dc-item-time", datetime: item.created_at }, timeText(item.created_at, words.lang)),
    ]),
    h("div", { class: "dc-item-actions" }, [
      unread && icon(words.markRead, item.title, "✓", actions.markRead),
      icon(words.remove, item.title, "×", actions.remove),
    ]),
  ]);
}
