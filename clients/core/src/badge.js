// The counters of the own inbox (PROTO-40 to 42), pure.

/** @typedef {{unread: number, unseen: number, revision: [number, number]}} Badge */

/**
 * What becomes of the badge with an `inbox` member, an event `inbox` or a reply.
 * @param {Badge | null} own @param {any} news
 * @returns {[Badge | null, boolean]} the badge, and whether to ask the server
 */
export function take(own, news) {
  if (!news) return [own, false];
  if (Array.isArray(news.revision)) {
    const { unread, unseen, revision } = news;
    if (!own) return [{ unread, unseen, revision }, false];
    const [user, tenant] = [revision[0] - own.revision[0], revision[1] - own.revision[1]];
    if (user * tenant < 0) return [own, true]; // two changes crossed on their way
    return [user + tenant > 0 ? { unread, unseen, revision } : own, false];
  }
  const later = news.tenant_revision - (own?.revision[1] ?? Infinity);
  if (!own || !(later > 0)) return [own, false];
  if (news.action || later > 1) return [own, true];
  const revision = /** @type {[number, number]} */ ([own.revision[0], own.revision[1] + 1]);
  return [{ unread: own.unread + 1, unseen: own.unseen + 1, revision }, false];
}
