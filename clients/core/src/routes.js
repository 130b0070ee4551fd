// Commands over REST, for a client whose connection is a stream; answers in the shape of a socket's (PROTO-46).

/** @typedef {(rest: import("./rest.js").Rest, user: string, fields: any) => Promise<any>} Route */

const part = encodeURIComponent;
/** @param {string} user */
const person = (user) => `/v1/users/${part(user)}/`;

/** @param {any} found */
const badge = ({ unread, unseen, revision }) => ({ unread, unseen, revision });

/** @param {string} verb @param {string} [action] @returns {Route} */
const marking = (verb, action = verb) => async (rest, user, { ids, all }) => {
  const found = await rest.call("POST", `${person(user)}notifications/${verb}`, all ? { all } : { ids });
  return { action, ids: all ? null : found.changed, count: found.count, unknown: found.unknown, inbox: badge(found) };
};

/** @param {string} what @param {(fields: any) => object} body @returns {Route} */
const talking = (what, body) => (rest, _user, fields) =>
  rest.call("POST", `/v1/conversations/${part(fields.conversation)}/${what}`, body(fields));

/** @type {Record<string, Route>} */
export const ROUTES = {
  async inbox(rest, user, { before = "", limit = 50, states = [], kinds = [] }) {
    const asked = new URLSearchParams({ before, limit });
    for (const one of states) asked.append("state", one);
    for (const one of kinds) asked.append("type", one);
    const found = await rest.call("GET", `${person(user)}notifications?${asked}`);
    return { notifications: found.notifications, next: found.next || undefined, inbox: badge(found) };
  },
  async counters(rest, user, { by_kind }) {
    const found = await rest.call("GET", `${person(user)}unread-count${by_kind ? "?kinds=true" : ""}`);
    return { inbox: badge(found), kinds: found.kinds };
  },
  read: marking("read"),
  seen: marking("seen"),
  unread: marking("unread"),
  archive: marking("archive", "archived"),
  async delete(rest, user, { ids, all }) {
    /** @type {any} */
    let found;
    /** @type {string[]} */
    const unknown = [];
    /** @param {string} which */
    const remove = async (which) => (found = await rest.call("DELETE", `${person(user)}notifications${which}`));
    if (all) await remove("?state=all");
    else {
      for (const id of ids) {
        await remove(`/${part(id)}`).catch((error) => {
          if (error.code !== "unknown-notification") throw error;
          unknown.push(id);
        });
      }
      ids = ids.filter((/** @type {string} */ id) => !unknown.includes(id));
    }
    return { action: "deleted", ids: all ? null : ids, count: all ? found.count : ids.length, unknown, inbox: found && badge(found) };
  },
  message: talking("messages", ({ content, id, kind: message_type, reply_to }) => ({ content, id, message_type, reply_to })),
  typing: talking("typing", ({ typing: is_typing = true }) => ({ is_typing })),
  message_read: talking("read", ({ ids: message_ids }) => ({ message_ids })),
  async presence(rest, _user, { channel, users }) {
    if (channel) return { channel, data: await rest.call("GET", `/v1/presence?channel=${part(channel)}`) };
    /** @type {Record<string, boolean>} */
    const online = {};
    for (const one of users) online[one] = (await rest.call("GET", `/v1/presence/${part(one)}`)).online;
    return { users: online };
  },
};
