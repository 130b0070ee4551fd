import { ChannelFeed, isOnline, NO_PRESENCE, NOTHING, hubOf, presenceOf } from "@dualcast/client/stores";
import { computed, toValue } from "vue";
import { useStoreOf } from "./lifetime.js";
import { useDualcast } from "./plugin.js";

/** @typedef {import("@dualcast/client").DualcastClient} DualcastClient */
/** @typedef {import("@dualcast/client/stores").Publication} Publication */
/** @typedef {import("vue").MaybeRefOrGetter<string | null | undefined>} ChannelSource nothing: no channel for now */
/**
 * @typedef {object} ChannelOptions
 * @property {number} [limit] of the list, up to 1,000; 50
 * @property {readonly string[]} [events] only these types; needed with the transport `eventsource`
 * @property {(publication: Publication) => void} [onEvent] each, once
 * @property {(gap: import("@dualcast/client/stores").Gap) => void} [onGap]
 * @property {DualcastClient} [client]
 */

/**
 * A channel: subscribed while any component wants it. Refs: `events` (oldest first, the last `limit`), `last`,
 * `state` (`{data, status}`) of a `task:` or `batch:` channel, `status`, `error` (why it was refused), `gap` (what is
 * shown has a hole: reload it, or `gap.value.backfill()`). `clear()` forgets events and gap.
 * @param {ChannelSource} channel may change @param {ChannelOptions} [options]
 */
export function useChannel(channel, { limit, events, onEvent, onGap, client: given } = {}) {
  const hub = hubOf(useDualcast(given));
  /** @type {ChannelFeed | null} */
  let feed = null;
  /** @param {string} name */
  const open = (name) => {
    feed = Object.assign(new ChannelFeed(hub, name, { events, limit }), { onEvent, onGap });
    return feed.store;
  };
  const view = useStoreOf(() => toValue(channel), open, NOTHING);
  return {
    events: computed(() => view.value.events),
    last: computed(() => view.value.last),
    state: computed(() => view.value.state),
    status: computed(() => view.value.status),
    error: computed(() => view.value.error),
    gap: computed(() => view.value.gap),
    clear: () => feed?.clear(),
  };
}

/**
 * Who is in a room, in refs: `members` (`{user, devices}`, at most 1,000), `count` of all, `more`, `status`, `error`.
 * @param {ChannelSource} channel may change; with or without `presence:` @param {{client?: DualcastClient}} [options]
 */
export function usePresence(channel, { client: given } = {}) {
  const { channels } = hubOf(useDualcast(given));
  const view = useStoreOf(() => toValue(channel), (name) => presenceOf(channels, name), NO_PRESENCE);
  return {
    members: computed(() => view.value.members),
    count: computed(() => view.value.count),
    more: computed(() => view.value.more),
    status: computed(() => view.value.status),
    error: computed(() => view.value.error),
    /** @param {string} user */
    isOnline: (user) => isOnline(view.value, user),
  };
}
