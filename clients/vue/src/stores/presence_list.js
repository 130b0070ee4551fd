// Who is in a channel, pure: states and events of presence (PROTO-43, 44, 52) in any order.

/** @typedef {{user: string, devices: string[], revision: number}} Member */
/**
 * @typedef {object} PresenceList
 * @property {boolean} known false: nothing was heard yet
 * @property {readonly Member[]} members at most `limit`, in the order they were heard of
 * @property {number} count of all there are, also of those beyond the limit
 * @property {boolean} more there are more than `members`
 * @property {number} revision the newest heard of
 * @property {number} base the revision of the state: events up to it are in it
 * @property {ReadonlyMap<string, number>} left who left since the state, and at which revision
 */
/**
 * @typedef {{type: "state", data: {members: {user: string, devices: string[]}[], count: number, revision: number,
 *   more: boolean} | null, status?: string} | {type: "presence", data: {joined: string[], left: string[],
 *   count: number, revision: number}}} PresenceEvent
 */

/** Members kept where the application does not say. */
export const MOST_MEMBERS = 1_000;

/** @type {PresenceList} */
export const NOBODY = Object.freeze({
  known: false,
  members: [],
  count: 0,
  more: false,
  revision: 0,
  base: 0,
  left: new Map(),
});

/** @param {PresenceList} list @param {PresenceEvent} event @param {number} [limit] @returns {PresenceList} */
export function reducePresence(list, event, limit = MOST_MEMBERS) {
  if (event.type === "presence") return changed(list, event.data, limit);
  if (event.data) return stated(list, event.data, limit);
  return event.status === "none" ? { ...NOBODY, known: true } : list; // away, too-large: what was known stays
}

/**
 * @param {PresenceList} list @param {NonNullable<Extract<PresenceEvent, {type: "state"}>["data"]>} data
 * @param {number} limit @returns {PresenceList}
 */
function stated(list, { members, count, revision, more }, limit) {
  if (list.known && revision < list.base) return list;
  /** @type {Map<string, Member>} */
  const found = new Map(members.map(({ user, devices }) => [user, { user, devices, revision }]));
  // Events that overtook the state: of two words about one user the higher revision is right.
  for (const member of list.members) if (member.revision > revision) found.set(member.user, member);
  const left = new Map([...list.left].filter(([, at]) => at > revision));
  for (const user of left.keys()) found.delete(user);
  const kept = [...found.values()].slice(0, limit);
  const newest = list.revision > revision;
  return {
    known: true,
    members: kept,
    count: newest ? list.count : count,
    more: more || found.size > limit,
    revision: newest ? list.revision : revision,
    base: revision,
    left,
  };
}

/**
 * @param {PresenceList} list @param {Extract<PresenceEvent, {type: "presence"}>["data"]} data
 * @param {number} limit @returns {PresenceList}
 */
function changed(list, { joined, left, count, revision }, limit) {
  if (revision <= list.base) return list;
  const found = new Map(list.members.map((member) => [member.user, member]));
  const gone = new Map(list.left);
  /** @param {string} user */
  const later = (user) => revision >= Math.max(found.get(user)?.revision ?? 0, gone.get(user) ?? 0);
  let { more } = list;
  for (const user of joined.filter(later)) {
    gone.delete(user);
    if (found.has(user) || found.size < limit) {
      found.set(user, { user, devices: found.get(user)?.devices ?? [], revision });
    } else more = true;
  }
  for (const user of left.filter(later)) {
    found.delete(user);
    gone.delete(user);
    gone.set(user, revision);
  }
  for (const user of gone.keys()) {
    if (gone.size <= limit) break;
    gone.delete(user);
  }
  const newer = revision >= list.revision;
  return {
    ...list,
    members: [...found.values()],
    count: newer ? count : list.count,
    more,
    revision: Math.max(revision, list.revision),
    left: gone,
  };
}
