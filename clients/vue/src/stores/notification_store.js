import { brings, EMPTY, reduceList, viewOf } from "./notification_list.js";
import { Observable } from "./observable.js";

/** @typedef {import("@dualcast/client").DualcastClient} DualcastClient */
/** @typedef {import("./notification_list.js").Mark} Mark */
/** @typedef {ReturnType<typeof viewOf>} NotificationView */
/**
 * @typedef {object} ListOptions
 * @property {number} [limit] items of one load, at most 100; 20
 * @property {number} [max] items kept; 500
 * @property {readonly import("./notification_list.js").ItemState[]} [states] which items; all but archived ones; []: all
 * @property {readonly string[]} [kinds] which types of notifications; all
 */

/** The protocol's bound of the ids in one command (PROTO-21). */
const MOST_IDS = 200;
const ALL = /** @type {const} */ (["unseen", "seen", "read", "archived"]);
/** With filters a page may be empty and still have a next one. */
const MOST_EMPTY = 5;
const COMMANDS = /** @type {const} */ ({
  read: "read",
  seen: "seen",
  unread: "unread",
  archived: "archive",
  deleted: "delete",
});
let keys = 0;

/**
 * The own inbox of a client: pages, arrivals, counters. Listens while somebody watches.
 * @extends {Observable<NotificationView>}
 */
export class NotificationStore extends Observable {
  #client;
  #shape;
  #pageSize;
  #list = EMPTY;
  /** Which load is the newest. */
  #load = 0;
  #user = "";
  /** @type {(() => void)[]} */
  #offs = [];
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  #soon;
  #peers;

  /**
   * @param {DualcastClient} client @param {ListOptions} [options]
   * @param {Set<NotificationStore>} [peers] of the same client: they show what is marked here
   */
  constructor(client, options = {}, peers = new Set()) {
    const { limit = 20, max = 500, states = ["unseen", "seen", "read"], kinds = [] } = options;
    const shape = { limit: Math.max(1, max), states: states.length ? states : ALL, kinds };
    super(viewOf(EMPTY, shape));
    this.#client = client;
    this.#shape = shape;
    this.#pageSize = Math.max(1, Math.min(limit, max, 100));
    this.#peers = peers;
  }

  /** @override */
  start() {
    const client = this.#client;
    this.#peers.add(this);
    this.#user = client.user;
    this.#offs = [
      client.on("publication", this.#publication),
      client.on("notification", () => {}), // so that a native EventSource hears this type and the next
      client.on("inbox", () => {}),
      client.on("badge", () => this.#list.pending.length || this.#count()),
      client.on("gap", ({ channel }) => void (this.#own(channel) && this.#reloadSoon())),
      client.on("welcome", this.#ready),
      client.on("connection", this.#ready), // a tab that shares another's connection may hear no welcome
    ];
    this.#count();
    this.#ready();
  }

  /** @override */
  stop() {
    this.#peers.delete(this);
    for (const off of this.#offs.splice(0)) off();
    clearTimeout(this.#soon);
    this.#soon = undefined;
    this.#load += 1; // what is on its way comes too late
    this.#list = EMPTY; // nor does the next one who watches begin with it: it may be another user's
    this.set(viewOf(EMPTY, this.#shape));
  }

  /** Reads the newest page again. Never rejects: `error` tells. @returns {Promise<void>} */
  reload = () => this.#read(true);

  /** Reads the page behind the last one, if there is `more`. @returns {Promise<void>} */
  loadMore = async () => {
    if (this.get().more && !this.#list.loading) await this.#read(false);
  };

  /**
   * Marks at once, takes it back if the server refuses. Rejects with DualcastError.
   * @param {keyof typeof COMMANDS} action @param {readonly string[] | "all"} ids @returns {Promise<void>}
   */
  async mark(action, ids) {
    if (ids === "all") return this.#ask(action, null);
    const parts = [];
    for (let at = 0; at < ids.length; at += MOST_IDS) parts.push(ids.slice(at, at + MOST_IDS));
    await Promise.all(parts.map((part) => this.#ask(action, part)));
  }

  /** @param {keyof typeof COMMANDS} action @param {readonly string[] | null} ids */
  async #ask(action, ids) {
    const key = (keys += 1);
    /** @type {Mark} */
    let mark = { action, ids, revision: this.#client.badge?.revision };
    for (const one of this.#peers) one.#take({ type: "asked", key, mark });
    let done = false;
    try {
      const { inbox } = await this.#client.inbox[COMMANDS[action]](ids ? [...ids] : "all");
      mark = { action, ids, revision: inbox?.revision };
      done = true;
    } finally {
      for (const one of this.#peers) {
        one.#list = reduceList(one.#list, { type: "settled", key, mark, done }, one.#shape);
        one.#count();
        if (done) one.#marked(action);
      }
    }
  }

  /** @param {import("./notification_list.js").ListEvent} event */
  #take(event) {
    this.#list = reduceList(this.#list, event, this.#shape);
    this.set(viewOf(this.#list, this.#shape));
  }

  /**
   * The counters as the client has them. While a command is on its way a `badge` does not come here: it may be
   * the command's own, which the view has taken into account already.
   */
  #count() {
    const { unread = 0, unseen = 0 } = this.#client.badge ?? {};
    this.#take({ type: "counts", counts: { unread, unseen } });
  }

  /** @param {boolean} first */
  async #read(first) {
    const load = (this.#load += 1);
    const { states, kinds } = this.#shape;
    /** @type {{limit: number, states: string[], kinds?: string[], before?: string}} */
    const asked = { limit: this.#pageSize, states: [...states] };
    if (kinds.length) asked.kinds = [...kinds];
    if (!first) asked.before = this.#list.next;
    this.#take({ type: "loading" });
    try {
      let page = await this.#client.inbox.list(asked);
      for (let empty = 0; empty < MOST_EMPTY && page.next && !page.notifications.length; empty += 1) {
        page = await this.#client.inbox.list({ ...asked, before: page.next });
      }
      const { notifications, next = "", inbox } = page;
      if (load === this.#load) {
        this.#take({ type: "page", items: notifications, next, first, revision: inbox.revision });
      }
    } catch (error) {
      if (load === this.#load) this.#take({ type: "failed", error: /** @type {Error} */ (error) });
    }
  }

  #reloadSoon() {
    // Many pages notice the same at once (PROTO-42).
    this.#soon ??= setTimeout(() => {
      this.#soon = undefined;
      this.reload();
    }, Math.random() * 3_000);
  }

  /** @param {import("./notification_list.js").Action | "added"} action */
  #marked(action) {
    if (action === "added" || brings(action, this.#shape.states)) this.#reloadSoon();
  }

  /** Loads what is not there, when there is a connection: commands that wait for one are few. */
  #ready = () => {
    const { user, status } = this.#client;
    const before = this.#user;
    if (user) this.#user = user;
    if (before && user && user !== before) this.#take({ type: "reset" });
    const { loaded, loading, error } = this.#list;
    if (status.status === "live" && !loading && (!loaded || error)) this.reload();
  };

  /** @param {string} channel */
  #own(channel) {
    return channel === "all" || channel === `user:${this.#client.user}`;
  }

  /** @param {import("../types.js").Publication} publication */
  #publication = ({ channel, event, data, inbox }) => {
    if (!this.#own(channel)) return;
    if (event === "inbox") {
      if (data.action !== "added") this.#take({ type: "marked", mark: data });
      this.#marked(data.action);
    } else if (event === "notification" && inbox) {
      const scope = channel === "all" ? /** @type {const} */ ("tenant") : /** @type {const} */ ("user");
      const item = { ...data, state: "unseen", scope };
      this.#list = reduceList(this.#list, { type: "arrived", item, news: inbox }, this.#shape);
      this.#count();
    }
  };
}
