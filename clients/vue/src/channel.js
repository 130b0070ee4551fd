import { computed, shallowRef, toValue, watch } from "vue";
import { whileAlive } from "./lifetime.js";
import { useDualcast } from "./plugin.js";
import { NO_FEED } from "./stores/feeds.js";
import { feedsOf } from "./stores/index.js";

/** @typedef {import("@dualcast/client").DualcastClient} DualcastClient */
/** @typedef {import("./types.js").Publication} Publication */
/** @typedef {import("vue").MaybeRefOrGetter<string | null | undefined>} ChannelSource nothing: no channel for now */

/**
 * Holds the channel that `source` names while the scope lives.
 * @param {DualcastClient} client @param {ChannelSource} source
 * @param {{begin?: () => void} & Omit<import("./stores/feeds.js").Holder, "changed">} [told] `begin`: of another channel
 */
export function useFeed(client, source, told = {}) {
  const feeds = feedsOf(client);
  const feed = shallowRef(NO_FEED);
  whileAlive(() => {
    let release = () => {};
    const off = watch(
      () => toValue(source),
      (channel) => {
        release();
        release = () => {};
        feed.value = NO_FEED;
        told.begin?.();
        if (!channel) return;
        const changed = () => void (feed.value = feeds.get(channel));
        release = feeds.hold(channel, { ...told, changed });
        changed();
      },
      { immediate: true },
    );
    return () => {
      off();
      release();
    };
  });
  return feed;
}

/** `waiting`: for the connection, or the answer. @param {import("./stores/feeds.js").Feed} feed @returns {"waiting" | "subscribed" | "refused"} */
const statusOf = ({ status }) => (status === "asked" ? "waiting" : status);

/**
 * @typedef {object} ChannelOptions
 * @property {number} [limit] of the list, up to 1,000; 50
 * @property {readonly string[]} [events] only these types; needed with the transport `eventsource`
 * @property {(publication: Publication) => void} [onEvent] each, once
 * @property {DualcastClient} [client]
 */

/**
 * A channel: subscribed while any component wants it. Refs: `events` (oldest first, the last `limit`), `last`,
 * `state` of a `task:` or `batch:` channel, `status`, `error` (why it was refused), `gap` (what is shown has a hole: reload it, or
 * `gap.value.backfill()`). `clear()` forgets events and gap.
 * @param {ChannelSource} channel may change @param {ChannelOptions} [options]
 */
export function useChannel(channel, { limit = 50, events: types, onEvent, client: given } = {}) {
  const client = useDualcast(given);
  const events = shallowRef(/** @type {readonly Publication[]} */ ([]));
  const most = Math.max(1, Math.min(limit, 1_000));
  const gap = shallowRef(/** @type {import("./stores/feeds.js").Gap | null} */ (null));
  const clear = () => {
    events.value = [];
    gap.value = null;
  };
  for (const name of types ?? []) client.on(name, () => {})(); // its type is known from now on
  const feed = useFeed(client, channel, {
    begin: clear,
    publication(publication) {
      if (types && !types.includes(publication.event)) return;
      events.value = [...events.value, publication].slice(-most);
      onEvent?.(publication);
    },
    gap: (found) => void (gap.value = found),
  });
  return {
    events,
    last: computed(() => events.value.at(-1) ?? null),
    state: computed(() => feed.value.state),
    status: computed(() => statusOf(feed.value)),
    error: computed(() => feed.value.error),
    gap,
    clear,
  };
}

/**
 * Who is in a `presence:` channel, in refs: `members` (`{user, devices}`, at most 1,000), `count` of all, `more`,
 * `known` (false until the first word), `status`, `error`.
 * @param {ChannelSource} channel may change; with or without `presence:` @param {{client?: DualcastClient}} [options]
 */
export function usePresence(channel, { client: given } = {}) {
  const named = () => {
    const name = toValue(channel);
    return name && !name.startsWith("presence:") ? `presence:${name}` : name;
  };
  const feed = useFeed(useDualcast(given), named);
  const users = computed(() => new Set(feed.value.presence.members.map(({ user }) => user)));
  return {
    members: computed(() => feed.value.presence.members),
    count: computed(() => feed.value.presence.count),
    more: computed(() => feed.value.presence.more),
    known: computed(() => feed.value.presence.known),
    status: computed(() => statusOf(feed.value)),
    error: computed(() => feed.value.error),
    /** @param {string} user */
    isOnline: (user) => users.value.has(user),
  };
}
