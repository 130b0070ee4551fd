// Who is there, from a state and what follows it (PROTO-43, 44, 50, 52). Pure.

/**
 * @typedef {object} Presence
 * @property {"waiting" | "ready" | "none" | "away" | "too-large" | "refused"} status `ready`: `members` are known; `away`,
 *   `too-large`: they could not be read; `refused`: see `error`
 * @property {readonly {user: string, devices: readonly string[]}[]} members by user id; of those who came later the
 *   devices are not known
 * @property {number} count users, also where not all are listed
 * @property {boolean} more `members` are not all
 */
/**
 * @typedef {object} Known
 * @property {number} state revision of the state, -1: there was none
 * @property {number} revision the highest
 * @property {Map<string, {revision: number, here: boolean}>} users of whom events told
 * @property {Presence} view
 */

/** Most members that are kept. */
export const MOST = 1_000;
/** @type {Presence} */
export const NOBODY = Object.freeze({ status: "waiting", members: Object.freeze([]), count: 0, more: false });

/** The channel of a room: with or without the kind. @param {string} name */
export const presenceChannel = (name) => (name.startsWith("presence:") ? name : `presence:${name}`);

/** @returns {Known} */
export const unknown = () => ({ state: -1, revision: -1, users: new Map(), view: NOBODY });

/** @param {{user: string}} a @param {{user: string}} b */
const byName = (a, b) => (a.user < b.user ? -1 : a.user > b.user ? 1 : 0);

/**
 * @param {Known} known @param {{data: any, status?: string}} frame a `state`
 * @param {number} [most] @returns {Known}
 */
export function state(known, { data, status }, most = MOST) {
  if (!data) {
    const view = { ...known.view, status: /** @type {Presence["status"]} */ (status ?? "none") };
    // A state that could not be read says nothing about who was known to be there.
    return status === "away" ? { ...known, view } : { ...unknown(), view: { ...NOBODY, status: view.status } };
  }
  if (data.revision < known.state) return known;
  const members = new Map(data.members.map((/** @type {any} */ one) => [one.user, one]));
  const users = new Map([...known.users].filter(([, { revision }]) => revision > data.revision));
  for (const [user, { here }] of users) {
    if (!here) members.delete(user);
    else if (!members.has(user)) members.set(user, { user, devices: [] });
  }
  const newest = known.revision > data.revision;
  const count = newest ? known.view.count : data.count;
  const list = [...members.values()].sort(byName);
  const more = data.more || list.length > most;
  const view = { status: /** @type {const} */ ("ready"), members: list.slice(0, most), count, more };
  return { state: data.revision, revision: Math.max(known.revision, data.revision), users, view };
}

/**
 * @param {Known} known @param {{joined: string[], left: string[], count: number, revision: number}} data of an event
 * @param {number} [most] @returns {Known}
 */
export function change(known, { joined, left, count, revision }, most = MOST) {
  if (revision <= known.state) return known;
  const users = new Map(known.users);
  const members = new Map(known.view.members.map((one) => [one.user, one]));
  let { more } = known.view;
  for (const [names, here] of /** @type {[string[], boolean][]} */ ([[joined, true], [left, false]])) {
    for (const user of names) {
      if ((users.get(user)?.revision ?? -1) >= revision) continue;
      users.delete(user); // to the end: the oldest are forgotten first
      users.set(user, { revision, here });
      if (!here) members.delete(user);
      else if (members.has(user)) continue;
      else if (members.size < most) members.set(user, { user, devices: [] });
      else more = true;
    }
  }
  for (const user of users.keys()) {
    if (users.size <= 2 * most) break;
    users.delete(user);
  }
  const newest = revision >= known.revision;
  const view = {
    ...known.view,
    members: [...members.values()].sort(byName),
    count: newest ? count : known.view.count,
    more,
  };
  return { ...known, revision: Math.max(revision, known.revision), users, view };
}
