import { apply, arrived, bounded, brings, entriesOf, fits, isIn } from "./inbox_state.js";
import { isPassing } from "./passing.js";
import { Store } from "./store.js";

/** @typedef {import("./inbox_state.js").Entry} Entry */
/** @typedef {import("./inbox_state.js").Notification} Notification */
/**
 * @typedef {object} ListView
 * @property {"loading" | "ready" | "error"} status `error`: nothing could be loaded yet
 * @property {readonly Notification[]} notifications newest first
 * @property {boolean} hasMore
 * @property {boolean} loading a page is under way, or nothing could be asked for yet
 * @property {boolean} loadingMore it is the next page
 * @property {boolean} stale something was missed: it is about to be loaded again
 * @property {(Error & {code: string}) | null} error of the last attempt to load
 */
/**
 * Those of `useNotifications`.
 * @typedef {object} ListOptions
 * @property {number} [limit] @property {readonly string[] | null} [kinds] @property {readonly string[] | null} [states] []: all
 * @property {number} [max]
 */

/** @type {ListView} */
export const LOADING = Object.freeze({
  status: "loading",
  notifications: Object.freeze([]),
  hasMore: false,
  loading: true,
  loadingMore: false,
  stale: false,
  error: null,
});
/** Whatever is not put away. */
const SHOWN = ["unseen", "seen", "read"];
const ALL = [...SHOWN, "archived"];
const MOST_PAGE = 100;
/** With filters a page may be empty and still have a next one. */
const MOST_EMPTY = 5;
/** Events that are kept while a page is under way. */
const MOST_EVENTS = 1_000;

/** One list of the own inbox: pages of the server, and what happened since. While somebody listens to `store`. */
export class InboxList {
  #inbox;
  #limit;
  #max;
  #filter;
  /** What the server has said, without what is under way. @type {readonly Entry[]} */
  entries = [];
  #next = "";
  /** @type {import("./inbox_state.js").Revision | null} of the first page */
  #revision = null;
  /** @type {Pick<ListView, "status" | "loadingMore" | "stale" | "error">} */
  #phase = LOADING;
  /** Which attempt counts; others come too late. */
  #attempt = 0;
  /** What came in while a page is under way. @type {any[] | null} */
  #events = null;
  #loaded = false;
  /** Attempts in a row. */
  #failed = 0;

  /** @param {import("./inbox.js").Inbox} inbox @param {ListOptions} [options] */
  constructor(inbox, { limit = 20, kinds, states, max = 500 } = {}) {
    this.#inbox = inbox;
    this.#limit = Math.max(1, Math.min(limit, MOST_PAGE));
    this.#max = Math.max(this.#limit, max);
    this.#filter = { kinds: kinds ?? [], states: states?.length === 0 ? ALL : (states ?? SHOWN) };
    this.store = new Store(LOADING, () => inbox.open(this));
  }

  // ── for the application ──

  /** The next page. @returns {Promise<void>} its failure is in `error` */
  loadMore = async () => {
    if (this.#phase.status !== "ready" || this.#events || !this.#hasMore) return;
    await this.#load(this.#next, this.#limit);
  };

  /** The newest page, or as many as there were, again. @returns {Promise<void>} its failure is in `error` */
  reload = async () => {
    if (!this.#inbox.isOpen(this)) return; // nobody tells it what changes meanwhile
    await this.#load("", Math.max(this.#limit, Math.min(this.entries.length, MOST_PAGE)));
  };

  // ── for the inbox ──

  /** There is a connection: loads what is not there. */
  ready() {
    if (this.#events) return; // a page is under way, also over a change of connections
    if (!this.#loaded || this.#phase.status === "error" || this.#phase.stale) void this.reload();
    else if (this.#phase.error) this.#show({ error: null });
  }

  /** Something was missed. */
  missed() {
    this.#show({ stale: true });
  }

  /** Nobody looks, or it is another user's: what there is counts no more. */
  reset() {
    this.#attempt += 1;
    this.#events = null;
    this.#loaded = false;
    this.entries = [];
    this.#phase = LOADING;
    this.#show({});
  }

  /** A publication of the own inbox: a notification, or an event `inbox`. @param {any} publication */
  take(publication) {
    if (this.#events && this.#events.push(publication) > MOST_EVENTS) {
      this.#events = null;
      void this.reload();
      return;
    }
    this.#take(publication, this.#revision);
    this.#show({});
  }

  /**
   * A change that the server confirmed.
   * @param {import("./inbox_state.js").Change} change @param {readonly string[]} unknown ids
   */
  confirm(change, unknown) {
    // A page may have been quicker than the answer.
    if (!isIn(change, this.#revision)) this.entries = apply(this.entries, change);
    if (brings(change.action, this.#filter.states)) this.#inbox.reloadSoon(this);
    if (unknown.length) this.entries = apply(this.entries, { action: "deleted", ids: unknown });
    this.#events?.push({ event: "inbox", data: change });
    this.#trim();
    this.#show({});
  }

  /** What is under way has changed. */
  refresh() {
    this.#show({});
  }

  // ── inside ──

  get #hasMore() {
    return this.#next !== "" && this.entries.length < this.#max;
  }

  /** @param {any} publication @param {import("./inbox_state.js").Revision | null} revision of what there is */
  #take(publication, revision) {
    const found = arrived(publication);
    if (found) {
      if (isIn(found.news, revision) || !fits(found.item, this.#filter)) return;
      if (this.entries.some(({ item }) => item.id === found.item.id)) return;
      this.entries = [found, ...this.entries];
    } else if (publication.event === "inbox" && !isIn(publication.data, revision)) {
      this.entries = apply(this.entries, publication.data);
      if (brings(publication.data.action, this.#filter.states)) this.#inbox.reloadSoon(this);
    }
    this.#trim();
  }

  /** Keeps to what fits and to the limit. */
  #trim() {
    const left = this.entries.filter(({ item }) => !fits(item, this.#filter)).map(({ item }) => item.id);
    if (left.length) this.entries = apply(this.entries, { action: "deleted", ids: left });
    if (this.entries.length <= this.#max) return;
    const kept = bounded(this.entries, this.#max);
    this.entries = kept ?? this.entries.slice(0, this.#limit);
    this.#next = this.entries[this.entries.length - 1].next;
    if (!kept) this.#inbox.reloadSoon(this); // nobody knows what comes after the last
  }

  /** @param {string} before "" : from the newest @param {number} limit */
  async #load(before, limit) {
    const attempt = (this.#attempt += 1);
    const first = before === "";
    this.#events = [];
    this.#show(first ? { loadingMore: false, status: this.#loaded ? "ready" : "loading" } : { loadingMore: true });
    try {
      /** @type {Entry[]} */
      let found = [];
      /** @type {any} */
      let page = { next: before };
      for (let empty = 0; !found.length && empty < MOST_EMPTY && (page.next || empty === 0); empty += 1) {
        const { kinds, states } = this.#filter;
        page = await this.#inbox.client.inbox.list({
          limit,
          ...(page.next ? { before: page.next } : {}),
          ...(kinds.length ? { kinds: [...kinds] } : {}),
          states: [...states],
        });
        if (attempt !== this.#attempt) return;
        found = entriesOf(page);
        if (first && empty === 0) this.#revision = page.inbox.revision;
      }
      this.#failed = 0;
      this.#put(first, found, page);
      this.#show({ status: "ready", loadingMore: false, error: null, ...(first ? { stale: false } : {}) });
    } catch (error) {
      if (attempt !== this.#attempt) return;
      this.#events = null;
      this.#show({ ...(this.#loaded ? {} : { status: "error" }), loadingMore: false, error: /** @type {any} */ (error) });
      // A connection that stays is no occasion to load what is still missing.
      if (first && this.#inbox.live && isPassing(error)) this.#inbox.reloadSoon(this, (this.#failed += 1));
    }
  }

  /** @param {boolean} first @param {Entry[]} found @param {any} page */
  #put(first, found, page) {
    const events = this.#events ?? [];
    this.#events = null;
    this.#loaded = true;
    this.#next = page.next ?? "";
    if (first) this.entries = found;
    else {
      const known = new Set(this.entries.map(({ item }) => item.id));
      this.entries = [...this.entries, ...found.filter(({ item }) => !known.has(item.id))];
    }
    // What came in since the server wrote this page; what it knew already changes nothing.
    for (const event of events) this.#take(event, first ? this.#revision : page.inbox.revision);
    this.#trim();
  }

  /** @param {Partial<ListView>} phase */
  #show(phase) {
    this.#phase = { ...this.#phase, ...phase };
    const { status, loadingMore, stale, error } = this.#phase;
    const under = this.#inbox.pending.reduce(apply, this.entries);
    const items = under.filter(({ item }) => fits(item, this.#filter)).map(({ item }) => item);
    const before = this.store.get();
    const old = before.notifications;
    const same = items.length === old.length && items.every((item, at) => item === old[at]);
    const notifications = same ? old : items;
    const loading = this.#events !== null || status === "loading";
    this.store.set({ status, notifications, hasMore: this.#hasMore, loading, loadingMore, stale, error });
  }
}
