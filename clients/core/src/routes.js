// Commands over REST, for a client whose connection is a stream; answers in the shape of a socket's (PROTO-46).

const part = encodeURIComponent;

/** @param {any} found */
const badge = ({ unread, unseen, revision }) => ({ unread, unseen, revision });

/** @param {string} verb @param {string} action */
const marking = (verb, action) =>
  /** @type {Route} */ (async (rest, user, { ids, all }) => {
    const found = await rest.call("POST", `/v1/users/${part(user)}/notifications/${verb}`, all ? { all } : { ids });
    return { action, ids: all ? null : found.changed, count: found.count, unknown: found.unknown, inbox: badge(found) };
  });

/** @typedef {(rest: import("./rest.js").Rest, user: string, fields: any) => Promise<any>} Route */

/** @type {Record<string, Route>} */
export const ROUTES = {
  async inbox(rest, user, { before = "", limit = 50, states = [], kinds = [] }) {
    const asked = new URLSearchParams({ before, limit });
    for (const one of states) asked.append("state", one);
    for (const one of kinds) asked.append("type", one);
    const found = await rest.call("GET", `/v1/users/${part(user)}/notifications?${asked}`);
    return { notifications: found.notifications, next: found.next || undefined, inbox: badge(found) };
  },
  async counters(rest, user, { by_kind }) {
    const found = await rest.call("GET", `/v1/users/${part(user)}/unread-count${by_kind ? "?kinds=true" : ""}`);
    return { inbox: badge(found), kinds: found.kinds };
  },
  read: marking("read", "read"),
  seen: marking("seen", "seen"),
  unread: marking("unread", "unread"),
  archive: marking("archive", "archived"),
  async delete(rest, user, { ids, all }) {
    const path = `/v1/users/${part(user)}/notifications`;
    if (all) {
      const found = await rest.call("DELETE", `${path}?state=all`);
      return { action: "deleted", ids: null, count: found.count, inbox: badge(found) };
    }
    const unknown = new Set();
    let inbox;
    for (const id of ids) {
      const found = await rest.call("DELETE", `${path}/${part(id)}`).catch((error) => {
        if (error.code !== "unknown-notification") throw error;
        unknown.add(id);
      });
      if (found) inbox = badge(found);
    }
    const done = ids.filter((/** @type {string} */ id) => !unknown.has(id));
    return { action: "deleted", ids: done, count: done.length, unknown: [...unknown], inbox };
  },
  async message(rest, _user, { conversation, content, kind, id, reply_to }) {
    const body = { content, id, message_type: kind, reply_to };
    const found = await rest.call("POST", `/v1/conversations/${part(conversation)}/messages`, body);
    return { id: found.id, seq: found.seq, time: found.time };
  },
  async typing(rest, _user, { conversation, typing = true }) {
    await rest.call("POST", `/v1/conversations/${part(conversation)}/typing`, { is_typing: typing });
    return {};
  },
  async message_read(rest, _user, { conversation, ids }) {
    const found = await rest.call("POST", `/v1/conversations/${part(conversation)}/read`, { message_ids: ids });
    return { unread: found.unread, unknown: found.unknown };
  },
  async presence(rest, _user, { channel, users }) {
    if (channel) return { channel, data: await rest.call("GET", `/v1/presence?channel=${part(channel)}`) };
    /** @type {Record<string, boolean>} */
    const online = {};
    for (const one of users) online[one] = (await rest.call("GET", `/v1/presence/${part(one)}`)).online;
    return { users: online };
  },
};
