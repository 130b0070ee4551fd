// The list of an inbox, pure: pages, arrivals, what was marked here (at once, taken back if the server refuses)
// and what was marked elsewhere (PROTO-46 to 48), in any order.

/** @typedef {"unseen" | "seen" | "read" | "archived"} ItemState */
/**
 * One notification of the own inbox.
 * @typedef {object} Item
 * @property {string} id
 * @property {string} type
 * @property {string} title
 * @property {string | null} [content]
 * @property {string | null} [link]
 * @property {string} [level]
 * @property {string | null} [source]
 * @property {string} created_at RFC 3339
 * @property {any} [data]
 * @property {ItemState} state
 * @property {"user" | "tenant"} [scope]
 */
/** @typedef {"seen" | "read" | "archived" | "unread" | "deleted" | "withdrawn"} Action */
/** What a publication, an event or a reply says of the inbox's revision (PROTO-40, 41). @typedef {{revision?: [number, number], tenant_revision?: number}} News */
/**
 * `ids` null: all there are, with `states` all in one of these.
 * @typedef {{action: Action, ids: readonly string[] | null, states?: readonly string[]} & News} Mark
 */
/** @typedef {{unread: number, unseen: number}} Counts */
/**
 * @typedef {object} Shape what a list keeps
 * @property {number} limit items at most
 * @property {readonly string[]} states
 * @property {readonly string[]} kinds types of notifications; none: all
 */
/**
 * @typedef {object} ListState
 * @property {readonly Item[]} items newest first, as the server has them
 * @property {string} next where the next page begins; "": nowhere
 * @property {boolean} clipped older ones were let go: `next` is not the item behind the last one
 * @property {boolean} loaded a page has come
 * @property {boolean} loading
 * @property {Error | null} error of the last load
 * @property {Counts} counts
 * @property {readonly {key: number, mark: Mark}[]} pending on their way to the server
 * @property {[number, number] | null} revision of the first page: what is not later is in it, or behind it
 * @property {ReadonlyMap<string, News>} ages of items that did not come with a page
 * @property {readonly Mark[]} missed by the page that is loading
 */
/**
 * @typedef {{type: "loading"} | {type: "failed", error: Error} | {type: "reset"}
 *   | {type: "page", items: Item[], next: string, first: boolean, revision: [number, number]}
 *   | {type: "arrived", item: Item, news: News} | {type: "marked", mark: Mark} | {type: "counts", counts: Counts}
 *   | {type: "asked", key: number, mark: Mark} | {type: "settled", key: number, mark: Mark, done: boolean}
 * } ListEvent
 */

/** @type {ListState} */
export const EMPTY = Object.freeze({
  items: [],
  next: "",
  clipped: false,
  loaded: false,
  loading: false,
  error: null,
  counts: { unread: 0, unseen: 0 },
  pending: [],
  revision: null,
  ages: new Map(),
  missed: [],
});

const RANK = { unseen: 0, seen: 1, read: 2, archived: 3 };
/** Marks remembered while a page loads. */
const MOST_MISSED = 100;

/** Whether the page of `revision` knows nothing of it yet. @param {News} news @param {readonly number[] | null | undefined} revision */
const isLater = (news, revision) => {
  if (!revision) return true;
  const [user, tenant] = news.revision ?? [0, news.tenant_revision ?? Infinity];
  return news.revision ? user > revision[0] || tenant > revision[1] : tenant > revision[1];
};

/** @param {Item} item */
export const isUnread = ({ state }) => RANK[state] < RANK.read;

/** What a mark makes of an item; null: it is gone. @param {Item} item @param {Mark} mark @returns {Item | null} */
export function marked(item, { action, ids, states }) {
  if (ids ? !ids.includes(item.id) : states?.length && !states.includes(item.state)) return item;
  if (action === "deleted" || action === "withdrawn") return null;
  if (action === "unread") return item.state === "read" ? { ...item, state: "seen" } : item;
  return RANK[item.state] < RANK[action] ? { ...item, state: action } : item;
}

/**
 * Whether an action may bring items into a list of these states that it did not have.
 * @param {Action} action @param {readonly string[]} states
 */
export const brings = (action, states) =>
  /** @type {ItemState[]} */ (Object.keys(RANK)).some((state) => {
    const now = marked(/** @type {Item} */ ({ state }), { action, ids: null })?.state ?? state;
    return now !== state && states.includes(now) && !states.includes(state);
  });

/** Whether a mark of all does not mean an item, since that came after it. @param {News | undefined} age @param {Mark} mark */
const isSpared = (age, { ids, revision }) => !ids && !!age && !!revision && isLater(age, revision);

/** @param {Item} item @param {readonly Mark[]} marks @param {ReadonlyMap<string, News>} ages @returns {Item | null} */
function through(item, marks, ages) {
  /** @type {Item | null} */
  let found = item;
  for (const mark of marks) found = found && !isSpared(ages.get(item.id), mark) ? marked(found, mark) : found;
  return found;
}

/** @param {readonly Item[]} items @param {readonly Mark[]} marks @param {Shape} shape @param {ReadonlyMap<string, News>} ages @returns {Item[]} */
function after(items, marks, { states }, ages) {
  return items.flatMap((item) => {
    const found = through(item, marks, ages);
    return found && states.includes(found.state) ? [found] : [];
  });
}

/** @param {ListState} list @param {ListEvent} event @param {Shape} shape @returns {ListState} */
export function reduceList(list, event, shape) {
  switch (event.type) {
    case "loading":
      return { ...list, loading: true, error: null, missed: [] };
    case "failed":
      return { ...list, loading: false, error: event.error, missed: [] };
    case "reset":
      return { ...EMPTY, pending: list.pending };
    case "page":
      return paged(list, event, shape);
    case "arrived":
      return came(list, event, shape);
    case "counts":
      return { ...list, counts: event.counts };
    case "marked":
      return confirmed(list, event.mark, shape);
    case "asked":
      return { ...list, pending: [...list.pending, { key: event.key, mark: event.mark }] };
    case "settled": {
      const pending = list.pending.filter(({ key }) => key !== event.key);
      return event.done ? confirmed({ ...list, pending }, event.mark, shape) : { ...list, pending };
    }
  }
}

/** @param {ListState} list @param {Extract<ListEvent, {type: "page"}>} page @param {Shape} shape @returns {ListState} */
function paged(list, page, shape) {
  const late = list.missed.filter((mark) => isLater(mark, page.revision));
  const fresh = after(page.items, late, shape, list.ages);
  const known = new Set(fresh.map(({ id }) => id));
  // Before a first page stands only what came after it was read; before a later one stands the list.
  const stays = (/** @type {string} */ id) => !page.first || isLater(list.ages.get(id) ?? { revision: [0, 0] }, page.revision);
  const all = [...list.items.filter(({ id }) => !known.has(id) && stays(id)), ...fresh];
  return kept(
    {
      ...list,
      next: page.next,
      clipped: !page.first && list.clipped,
      loaded: true,
      loading: false,
      error: null,
      revision: page.first ? page.revision : list.revision,
      missed: [],
    },
    all,
    shape,
  );
}

/** The list with these items, as many as it may have. @param {ListState} list @param {Item[]} items @param {Shape} shape @returns {ListState} */
function kept(list, items, { limit }) {
  const left = items.slice(0, limit);
  const ages = new Map(left.flatMap(({ id }) => (list.ages.has(id) ? [[id, /** @type {News} */ (list.ages.get(id))]] : [])));
  return { ...list, items: left, ages, clipped: list.clipped || items.length > limit };
}

/** @param {ListState} list @param {{item: Item, news: News}} came @param {Shape} shape @returns {ListState} */
function came(list, { item, news }, shape) {
  if (shape.kinds.length && !shape.kinds.includes(item.type)) return list;
  if (!shape.states.includes(item.state) || list.items.some(({ id }) => id === item.id)) return list;
  // What a connection catches up on may be far behind the page.
  if (!isLater(news, list.revision)) return list;
  return kept({ ...list, ages: new Map(list.ages).set(item.id, news) }, [item, ...list.items], shape);
}

/** @param {ListState} list @param {Mark} mark @param {Shape} shape @returns {ListState} */
function confirmed(list, mark, shape) {
  const missed = list.loading ? [...list.missed, mark].slice(-MOST_MISSED) : [];
  if (!isLater(mark, list.revision)) return { ...list, missed };
  return kept({ ...list, missed }, after(list.items, [mark], shape, list.ages), shape);
}

/**
 * What a user sees: what is on its way to the server counts as done.
 * @param {ListState} list @param {Shape} shape
 */
export function viewOf(list, shape) {
  const marks = list.pending.map(({ mark }) => mark);
  let { unread, unseen } = list.counts;
  for (const mark of marks) {
    const { action, ids, states } = mark;
    if (ids || states?.length || action === "unread") continue;
    // All of them: also those that are not in the list, but for those that came since.
    const since = list.items.filter(({ id }) => isSpared(list.ages.get(id), mark));
    unseen = since.filter(({ state }) => state === "unseen").length;
    if (action !== "seen") unread = since.filter(isUnread).length;
  }
  const single = marks.filter(({ ids, states }) => ids || states?.length);
  for (const item of single.length ? list.items : []) {
    const now = through(item, single, list.ages);
    unread += Number(now !== null && isUnread(now)) - Number(isUnread(item));
    unseen += Number(now?.state === "unseen") - Number(item.state === "unseen");
  }
  return {
    items: marks.length ? after(list.items, marks, shape, list.ages) : list.items,
    unread: Math.max(0, unread),
    unseen: Math.max(0, unseen),
    loading: list.loading || (!list.loaded && !list.error), // before a connection, too
    loaded: list.loaded,
    error: list.error,
    more: list.next !== "" && !list.clipped && list.items.length < shape.limit,
  };
}
