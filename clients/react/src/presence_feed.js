import { NOBODY } from "./presence.js";

/**
 * Who is in a presence channel, for `useSyncExternalStore`; all components have one subscription.
 * @param {import("./channels.js").Channels} channels @param {string} channel
 */
export const presenceOf = (channels, channel) => ({
  /** @param {() => void} listener @returns {() => void} */
  subscribe: (listener) => channels.use(channel, { changed: listener }),
  get: () => channels.peek(channel)?.presence?.view ?? NOBODY,
  error: () => channels.peek(channel)?.error ?? null,
});
