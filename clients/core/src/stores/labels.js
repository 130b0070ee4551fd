/**
 * What components say. `lang` is the language of the text (BCP 47). Some take a number.
 * @typedef {object} Labels
 * @property {string} lang
 * @property {string} connected @property {string} disconnected
 * @property {string} connecting @property {string} waiting @property {string} stopped beside `disconnected`
 * @property {string} connect @property {string} disconnect the buttons
 * @property {string} status the name of the region
 * @property {string} notifications
 * @property {(count: number) => string} unread
 * @property {string} markRead @property {string} markAllRead @property {string} remove
 * @property {string} loadMore @property {string} loading @property {string} empty
 * @property {string} actionFailed
 * @property {string} failed @property {string} retry @property {string} isNew
 */

/** @type {Labels} */
export const ZH = {
  lang: "zh-CN",
  connected: "已连接",
  disconnected: "未连接",
  connecting: "连接中…",
  waiting: "等待重连",
  stopped: "已停止",
  connect: "连接",
  disconnect: "断开",
  status: "连接状态",
  notifications: "通知",
  unread: (count) => `${count} 条未读`,
  markRead: "标为已读",
  markAllRead: "全部已读",
  remove: "删除",
  loadMore: "加载更多",
  loading: "加载中…",
  empty: "暂无通知",
  actionFailed: "操作失败",
  failed: "加载失败",
  retry: "重试",
  isNew: "未读",
};

/** @type {Labels} */
export const EN = {
  lang: "en",
  connected: "Connected",
  disconnected: "Not connected",
  connecting: "connecting…",
  waiting: "waiting to reconnect",
  stopped: "stopped",
  connect: "Connect",
  disconnect: "Disconnect",
  status: "Connection",
  notifications: "Notifications",
  unread: (count) => `${count} unread`,
  markRead: "Mark as read",
  markAllRead: "Mark all as read",
  remove: "Delete",
  loadMore: "Load more",
  loading: "Loading…",
  empty: "No notifications",
  actionFailed: "That did not work",
  failed: "Could not be loaded",
  retry: "Try again",
  isNew: "unread",
};

/** A time in the language of the labels. @param {string} time RFC 3339 @param {string} lang @returns {string} "" : it is none */
export function timeText(time, lang) {
  const found = new Date(time);
  return Number.isNaN(found.getTime()) ? "" : found.toLocaleString(lang, { dateStyle: "medium", timeStyle: "short" });
}

/** Own words in place of some; Chinese by default. @param {Partial<Labels>} [own] @returns {Labels} */
export const labelsOf = (own) => ({ ...ZH, ...own });
