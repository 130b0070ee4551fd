import { arrived, expected, apply } from "./inbox_state.js";
import { InboxList } from "./inbox_list.js";
import { Store } from "./store.js";

/** @typedef {import("@dualcast/client").DualcastClient} DualcastClient */
/** @typedef {import("./inbox_state.js").Revision} Revision */
/**
 * An action the server has not answered yet.
 * @typedef {object} Pending
 * @property {import("./inbox_state.js").Action} action
 * @property {readonly string[]} ids
 * @property {{unread: number, unseen: number}} count what it does to the counters …
 * @property {string} at … of this revision: later ones have it in them
 */
/** @typedef {"seen" | "read" | "unread" | "archived" | "deleted"} Mark */

/** Most ids of one command. */
const MOST_IDS = 200;
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

  /** @param {import("./inbox_list.js").ListOptions} [options] */
  list(options) {
    return new InboxList(this, options);
  }

  /**
   * Does something to notifications: at once here, and then on the server; what the server refuses is undone.
   * @param {Mark} action @param {string | readonly string[]} ids "all": all there are
   * @returns {Promise<boolean>} false: it was refused, see `failure`
   */
  async mark(action, ids) {
    const named = ids === "all" ? null : [...new Set([ids].flat())];
    if (named && named.length > MOST_IDS) {
      const parts = [];
      for (let at = 0; at < named.length; at += MOST_IDS) parts.push(this.mark(action, named.slice(at, at + MOST_IDS)));
      return (await Promise.all(parts)).every(Boolean);
    }
    if (named?.length === 0) return true;
    const lists = [...this.#lists.keys()];
    const shown = lists.flatMap(({ entries }) => [...this.pending.reduce(apply, entries)]);
    /** @type {Pending} */
    const op = {
      action,
      ids: named ?? shown.map(({ item }) => item.id),
      count: expected(shown, action, named),
      at: String(this.client.badge?.revision),
    };
    this.pending = [...this.pending, op];
    this.#refresh();
    try {
      const reply = await this.client.inbox[COMMANDS[action]](named ?? "all");
      const unknown = reply.unknown ?? [];
      const done = named && named.filter((id) => !unknown.includes(id));
      this.pending = this.pending.filter((one) => one !== op);
      for (const list of this.#lists.keys()) list.confirm({ action, ids: done, revision: reply.inbox?.revision }, unknown);
      this.failure.set(null);
      return true;
    } catch (error) {
      this.pending = this.pending.filter((one) => one !== op);
      this.failure.set(/** @type {any} */ (error));
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
    if (event === "notification" || event === "inbox") for (const list of this.#lists.keys()) list.take(publication);
  };

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
    const { unread = 0, unseen = 0, revision } = this.client.badge ?? {};
    const counts = this.pending.filter(({ at }) => at === String(revision)).map(({ count }) => count);
    const next = {
      unread: Math.max(0, counts.reduce((sum, count) => sum + count.unread, unread)),
      unseen: Math.max(0, counts.reduce((sum, count) => sum + count.unseen, unseen)),
    };
    const now = this.badge.get();
    if (next.unread !== now.unread || next.unseen !== now.unseen) this.badge.set(next);
  };
}
