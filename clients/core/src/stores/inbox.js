import { InboxList } from "./inbox_list.js";
import { apply, arrived, expected } from "./inbox_state.js";
import { Store } from "./store.js";

/** @typedef {import("../client.js").DualcastClient} DualcastClient */
/** @typedef {import("./inbox_state.js").Revision} Revision */
/**
 * An action the server has not answered yet.
 * @typedef {object} Pending
 * @property {import("./inbox_state.js").Action} action
 * @property {readonly string[]} ids
 * @property {boolean} all whatever there was
 * @property {number} since of `all`: notifications that came later
 * @property {{unread: number, unseen: number}} count of others: what it does to the counters …
 * @property {Revision | undefined} at … of this revision: later ones have it in them
 */
/** @typedef {"seen" | "read" | "unread" | "archived" | "deleted"} Mark */

/** Most ids of one command. */
const MOST_IDS = 200;
/** Lists of different options at the same time; more than that are not shared. */
const MOST_LISTS = 16;
/** Clients that missed the same thing ask again at different times (PROTO-42), ms. */
export const SPREAD_MS = 3_000;
/** However often it fails. */
const MOST_MS = 10_000;
/** @type {Record<Mark, "seen" | "read" | "unread" | "archive" | "delete">} */
const COMMANDS = { seen: "seen", read: "read", unread: "unread", archived: "archive", deleted: "delete" };
/** Nothing known. @type {Readonly<{unread: number, unseen: number}>} */
export const NO_BADGE = Object.freeze({ unread: 0, unseen: 0 });

/** The own inbox, as all components of a page share it: counters, actions, lists. Listens while somebody does. */
export class Inbox {
  /** @type {readonly Pending[]} in the order of the actions */
  pending = [];
  /** Why the last action failed. @type {Store<(Error & {code: string}) | null>} */
  failure = new Store(/** @type {any} */ (null));
  /** Counters, with what is under way. */
  badge;
  #spread;
  /** @type {Map<InboxList, number>} and how many keep it */
  #lists = new Map();
  /** By their options. @type {Map<string, InboxList>} */
  #shared = new Map();
  /** @type {Map<InboxList, any>} */
  #timers = new Map();
  #watchers = 0;
  /** @type {(() => void)[]} */
  #offs = [];
  #user = "";

  /** @param {DualcastClient} client @param {number} [spread] */
  constructor(client, spread = SPREAD_MS) {
    this.client = client;
    this.#spread = spread;
    this.badge = new Store(NO_BADGE, () => {
      const off = this.#watch();
      this.#count();
      return () => queueMicrotask(off);
    });
  }

  /** One for equal options. @param {import("./inbox_list.js").ListOptions} [options] @returns {InboxList} */
  list({ limit, max, kinds, states } = {}) {
    const key = JSON.stringify([limit, max, kinds, states]);
    const list = this.#shared.get(key) ?? new InboxList(this, { limit, max, kinds, states });
    for (const [old, one] of this.#shared) {
      if (this.#shared.size >= MOST_LISTS && one !== list && !this.isOpen(one)) this.#shared.delete(old);
    }
    if (this.#shared.size < MOST_LISTS) this.#shared.set(key, list);
    return list;
  }

  /**
   * Does something to notifications: at once here, and then on the server; what the server refuses is undone.
   * @param {Mark} action @param {string | readonly string[]} ids "all": all there are
   * @param {boolean} [quiet] a refusal is nobody's business: not in `failure`
   * @returns {Promise<boolean>} false: it was refused, see `failure`. Rejects with TypeError what are no ids, such as
   *   the event of `onClick={markSeen}`
   */
  async mark(action, ids, quiet = false) {
    const named = ids === "all" ? null : [...new Set([ids].flat())];
    if (named?.some((id) => typeof id !== "string")) throw new TypeError('ids are strings, or "all"');
    if (named && named.length > MOST_IDS) {
      const parts = [];
      for (let at = 0; at < named.length; at += MOST_IDS) parts.push(this.mark(action, named.slice(at, at + MOST_IDS), quiet));
      return (await Promise.all(parts)).every(Boolean);
    }
    if (named?.length === 0) return true;
    const lists = [...this.#lists.keys()];
    const shown = lists.flatMap(({ entries }) => [...this.pending.reduce(apply, entries)]);
    /** @type {Pending} */
    const op = {
      action,
      ids: named ?? shown.map(({ item }) => item.id),
      all: !named,
      since: 0,
      count: expected(shown, action, named ?? []),
      at: this.client.badge?.revision,
    };
    this.pending = [...this.pending, op];
    this.#refresh();
    try {
      const reply = await this.client.inbox[COMMANDS[action]](named ?? "all");
      const unknown = reply.unknown ?? [];
      const done = named && named.filter((id) => !unknown.includes(id));
      this.pending = this.pending.filter((one) => one !== op);
      for (const list of this.#lists.keys()) list.confirm({ action, ids: done, revision: reply.inbox?.revision }, unknown);
      if (!quiet) this.failure.set(null);
      return true;
    } catch (error) {
      this.pending = this.pending.filter((one) => one !== op);
      if (!quiet) this.failure.set(/** @type {any} */ (error));
      return false;
    } finally {
      this.#refresh();
    }
  }

  // ── for lists ──

  /** Somebody looks at a list. @param {InboxList} list @returns {() => void} nobody does any more */
  open(list) {
    const off = this.#watch();
    this.#lists.set(list, (this.#lists.get(list) ?? 0) + 1);
    if (this.live) list.ready();
    return () =>
      queueMicrotask(() => {
        const left = (this.#lists.get(list) ?? 0) - 1;
        if (left) this.#lists.set(list, left);
        else {
          this.#lists.delete(list);
          clearTimeout(this.#timers.get(list));
          this.#timers.delete(list);
          list.reset();
        }
        off();
      });
  }

  /** Whether somebody looks at it. @param {InboxList} list */
  isOpen(list) {
    return this.#lists.has(list);
  }

  get live() {
    return this.client.status.status === "live";
  }

  /** @param {InboxList} list @param {number} [failed] how often it has, in a row: later each time */
  reloadSoon(list, failed = 0) {
    list.missed();
    if (this.#timers.has(list)) return;
    const run = () => {
      this.#timers.delete(list);
      void list.reload();
    };
    this.#timers.set(list, setTimeout(run, Math.random() * Math.min(this.#spread * 2 ** failed, MOST_MS)));
  }

  // ── inside ──

  /** @returns {() => void} */
  #watch() {
    if (!this.#watchers++) {
      const { client } = this;
      this.#user = client.user;
      this.#offs = [
        client.on("publication", this.#publication),
        client.on("notification", () => {}), // so that a native EventSource hears this type and the next
        client.on("inbox", () => {}),
        client.on("gap", ({ channel }) => this.#own(channel) && this.#missed()),
        client.on("badge", this.#count),
        client.on("connection", this.#connection),
      ];
    }
    return () => {
      if (!--this.#watchers) for (const off of this.#offs.splice(0)) off();
    };
  }

  /** @param {string} channel */
  #own(channel) {
    return channel === "all" || channel === `user:${this.client.user}`;
  }

  #missed() {
    for (const list of this.#lists.keys()) this.reloadSoon(list);
  }

  /** @param {import("./channels.js").Publication} publication */
  #publication = (publication) => {
    const { channel, event, recovered, data } = publication;
    if (!this.#own(channel)) return;
    // Where it belongs, and what became of it, only the server knows.
    if (recovered ? arrived(publication) : event === "inbox" && data?.action === "added") return this.#missed();
    const found = arrived(publication);
    if (found?.news) this.#later(found.news);
    if (found || event === "inbox") for (const list of this.#lists.keys()) list.take(publication);
  };

  /** A notification came while actions are under way: what they do to the counters is not in those yet. @param {import("./inbox_state.js").News} news */
  #later({ revision, tenant_revision }) {
    if (!this.pending.length) return;
    for (const op of this.pending) {
      op.since += 1;
      if (!op.at) continue;
      const [user, tenant] = op.at;
      if (revision ? revision[0] === user + 1 : tenant_revision === tenant + 1) {
        op.at = revision ? [user + 1, tenant] : [user, tenant + 1];
      }
    }
    this.#count();
  }

  #connection = () => {
    if (!this.live) return;
    const { user } = this.client;
    const another = this.#user !== "" && user !== this.#user;
    this.#user = user;
    for (const list of this.#lists.keys()) {
      if (another) list.reset();
      list.ready();
    }
  };

  #refresh() {
    for (const list of this.#lists.keys()) list.refresh();
    this.#count();
  }

  #count = () => {
    let { unread = 0, unseen = 0 } = this.client.badge ?? {};
    const revision = String(this.client.badge?.revision);
    for (const { action, all, since, count, at } of this.pending) {
      if (!all && String(at) === revision) {
        unread += count.unread;
        unseen += count.unseen;
      } else if (all && action !== "unread") {
        unseen = Math.min(unseen, since);
        if (action !== "seen") unread = Math.min(unread, since);
      }
    }
    const next = { unread: Math.max(0, unread), unseen: Math.max(0, unseen) };
    const now = this.badge.get();
    if (next.unread !== now.unread || next.unseen !== now.unseen) this.badge.set(next);
  };
}

/** @typedef {string | readonly string[]} Ids an id, several, or "all" */

/**
 * What a user does with notifications, as both packages name it. Each gives false where the server refused it, and
 * rejects what are no ids (`mark`).
 * @param {Inbox} inbox
 */
export const inboxActions = (inbox) => ({
  /** @param {Ids} ids */
  markRead: (ids) => inbox.mark("read", ids),
  /** @param {Ids} [ids] */
  markSeen: (ids = "all") => inbox.mark("seen", ids),
  /** @param {Ids} ids */
  markUnread: (ids) => inbox.mark("unread", ids),
  /** @param {Ids} ids */
  archive: (ids) => inbox.mark("archived", ids),
  /** @param {Ids} ids */
  remove: (ids) => inbox.mark("deleted", ids),
});
