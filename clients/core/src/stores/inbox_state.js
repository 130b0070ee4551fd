// What becomes of a list of notifications with what happens to the inbox. Pure.

/** @typedef {"unseen" | "seen" | "read" | "archived"} ItemState */
/**
 * A notification of the inbox (docs/protocol.md, PROTO-47).
 * @typedef {object} Notification
 * @property {string} id
 * @property {string} type its kind
 * @property {string} title
 * @property {string | null} content
 * @property {string | null} link not checked: see `safeLink`
 * @property {string} level `info`, `success`, `warning`, `error`
 * @property {string | null} source
 * @property {string} priority
 * @property {string} status `read` or `unread`
 * @property {string} created_at RFC 3339, UTC
 * @property {string | null} expires_at
 * @property {Record<string, any>} data
 * @property {ItemState} state
 * @property {"user" | "tenant"} scope
 */
/** @typedef {[number, number]} Revision of the user's and of the tenant's part (PROTO-41) */
/**
 * The `inbox` member of a publication or the data of an event `inbox`: which revision it made.
 * @typedef {{revision?: Revision, tenant_revision?: number}} News
 */
/**
 * `news`: it came live; `next`: the cursor of what comes after it, where that is known.
 * @typedef {{item: Notification, news: News | null, next: string}} Entry
 */
/** @typedef {"seen" | "read" | "unread" | "archived" | "deleted" | "withdrawn"} Action */
/**
 * `ids` null: all there were, with `states` those in one of them.
 * @typedef {{action: Action, ids: readonly string[] | null, states?: readonly string[]} & News} Change
 */
/** @typedef {{kinds: readonly string[], states: readonly string[]}} Filter `kinds` []: all */

/** The state after an action; null: it is gone. @type {Record<Action, (state: ItemState) => ItemState | null>} */
const AFTER = {
  seen: (state) => (state === "unseen" ? "seen" : state),
  read: (state) => (state === "archived" ? state : "read"),
  unread: (state) => (state === "read" ? "seen" : state),
  archived: () => "archived",
  deleted: () => null,
  withdrawn: () => null,
};

/**
 * Whether a page of `revision` has in it what made `news`.
 * @param {News | null} news @param {Revision | null} revision
 */
export function isIn(news, revision) {
  if (!news || !revision) return false;
  if (news.revision) return news.revision[0] <= revision[0];
  return news.tenant_revision !== undefined && news.tenant_revision <= revision[1];
}

/**
 * Whether an action may bring items into a list of these states that it did not show.
 * @param {Action} action @param {readonly string[]} states
 */
export function brings(action, states) {
  if (!states.length) return false;
  const others = /** @type {ItemState[]} */ (["unseen", "seen", "read", "archived"]).filter((one) => !states.includes(one));
  return others.some((state) => {
    const to = AFTER[action]?.(state);
    return to && to !== state && states.includes(to);
  });
}

/** @param {{state: ItemState}} item */
export const isUnread = ({ state }) => state === "unseen" || state === "seen";

/** @param {Notification} item @param {ItemState} state @returns {Notification} */
const moved = (item, state) => ({ ...item, state, status: state === "read" || state === "archived" ? "read" : "unread" });

/**
 * The entries after a change: the same array when it is none to them. Of a change of all, what came later is left alone.
 * @param {readonly Entry[]} entries @param {Change} change @returns {readonly Entry[]}
 */
export function apply(entries, { action, ids, states, revision }) {
  const named = ids && new Set(ids);
  const after = AFTER[action];
  if (!after) return entries;
  let changed = false;
  /** @type {Entry[]} */
  const kept = [];
  for (const entry of entries) {
    const { item, news } = entry;
    const there = !news || !revision || isIn(news, revision);
    const is = named ? named.has(item.id) : there && (!states?.length || states.includes(item.state));
    const state = is ? after(item.state) : item.state;
    if (state === item.state) kept.push(entry);
    else {
      changed = true;
      if (state) kept.push({ ...entry, item: moved(item, state) });
      else if (entry.next && kept.length) kept.push({ .../** @type {Entry} */ (kept.pop()), next: entry.next });
    }
  }
  return changed ? kept : entries;
}

/** @param {Notification} item @param {Filter} filter */
export const fits = (item, { kinds, states }) =>
  (!kinds.length || kinds.includes(item.type)) && (!states.length || states.includes(item.state));

/**
 * The notification of a publication that was kept in the own inbox; null: it was not.
 * @param {{channel: string, event: string, data: any, inbox?: any}} publication @returns {Entry | null}
 */
export function arrived({ channel, event, data, inbox }) {
  if (event !== "notification" || !inbox || typeof data?.id !== "string") return null;
  const scope = channel === "all" ? "tenant" : "user";
  return { item: { ...data, state: "unseen", status: "unread", scope }, news: inbox, next: "" };
}

/** A page of the server as entries. @param {{notifications: Notification[], next?: string}} page @returns {Entry[]} */
export function entriesOf({ notifications, next = "" }) {
  return notifications.map((item, at) => ({ item, news: null, next: at === notifications.length - 1 ? next : "" }));
}

/**
 * At most `most` entries, cut where it is known what comes next.
 * @param {readonly Entry[]} entries @param {number} most
 * @returns {readonly Entry[] | null} null: nowhere is
 */
export function bounded(entries, most) {
  if (entries.length <= most) return entries;
  for (let at = most - 1; at >= 0; at -= 1) if (entries[at].next) return entries.slice(0, at + 1);
  return null;
}

/**
 * What an action that is under way makes of the counters: added to those the server told last.
 * @param {readonly Entry[]} entries of all lists @param {Action} action @param {readonly string[]} ids
 * @returns {{unread: number, unseen: number}}
 */
export function expected(entries, action, ids) {
  const named = new Set(ids);
  let [unread, unseen] = [0, 0];
  for (const { item } of entries) {
    if (!named.delete(item.id)) continue;
    const state = AFTER[action](item.state);
    unseen += Number(state === "unseen") - Number(item.state === "unseen");
    unread += Number(state === "unseen" || state === "seen") - Number(isUnread(item));
  }
  return { unread, unseen };
}
