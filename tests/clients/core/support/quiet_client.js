// A client without a connection: the test says what it hears, and answers what it asks.

export const USER = "alice";

export class Client {
  options = {};
  user = USER;
  badge = null;
  status = { status: "off", transport: null, stage: "", leader: true, stopped: null };
  /** What was asked, in order. @type {{name: string, args: any[], resolve: (reply: any) => void, reject: (error: any) => void}[]} */
  asked = [];
  #listeners = new Map();

  on(type, listener) {
    const found = this.#listeners.get(type) ?? new Set();
    this.#listeners.set(type, found.add(listener));
    return () => found.delete(listener);
  }

  /** How many listen. */
  get listening() {
    return [...this.#listeners.values()].reduce((sum, { size }) => sum + size, 0);
  }

  emit(type, detail) {
    for (const listener of [...(this.#listeners.get(type) ?? [])]) listener(detail);
  }

  be(status, more = {}) {
    this.status = { ...this.status, status, transport: status === "live" ? "websocket" : null, stopped: null, ...more };
    this.emit("connection", this.status);
  }

  connect() {
    this.asked.push({ name: "connect", args: [] });
    this.be("live");
  }

  disconnect() {
    this.asked.push({ name: "disconnect", args: [] });
    this.be("off");
  }

  #ask(name, args) {
    return new Promise((resolve, reject) => this.asked.push({ name, args, resolve, reject }));
  }

  subscribe(...channels) {
    return this.#ask("subscribe", channels);
  }

  unsubscribe(...channels) {
    this.asked.push({ name: "unsubscribe", args: channels });
    return Promise.resolve();
  }

  request(type, fields) {
    return this.#ask(type, [fields]);
  }

  inbox = Object.fromEntries(
    ["list", "count", "read", "seen", "unread", "archive", "delete"].map((name) => [name, (...args) => this.#ask(name, args)]),
  );

  /** The counters are these now. */
  count(unread, unseen, revision) {
    this.badge = { unread, unseen, revision };
    this.emit("badge", this.badge);
  }

  publish(channel, event, data, more = {}) {
    this.emit("publication", { channel, event, data, id: `p${Math.random()}`, time: "", ...more });
  }

  /** A notification that was kept: `revision` [user, tenant], or a number for one to the whole tenant. */
  notify(id, revision, more = {}) {
    const wide = typeof revision === "number";
    const inbox = wide ? { tenant_revision: revision } : { unread: 1, unseen: 1, revision };
    this.publish(wide ? "all" : `user:${this.user}`, "notification", { ...item(id), ...more }, { inbox });
  }

  /** What happened to the inbox elsewhere. */
  changed(action, ids, revision) {
    this.publish(`user:${this.user}`, "inbox", { action, ids, unread: 0, unseen: 0, revision });
  }

  /** Names of what was asked since the last call. */
  names() {
    return this.asked.map(({ name }) => name);
  }

  /** The newest question of this name; it waits for an answer. */
  last(name) {
    return this.asked.findLast((one) => one.name === name);
  }
}

export const item = (id, state) => ({ id, type: "alert", title: id, content: null, link: null, created_at: "", data: {}, ...(state ? { state } : {}) });

/** A page of the inbox. */
export const page = (items, { next, revision = [1, 1] } = {}) => ({
  notifications: items.map((one) => (typeof one === "string" ? item(one, "unseen") : one)),
  next,
  inbox: { unread: items.length, unseen: items.length, revision },
});

/** Lets promises go on. */
export const turn = () => new Promise((done) => setImmediate(done));

export const refusal = (code) => Object.assign(new Error(code), { code });
