import { NOBODY, presenceChannel } from "./presence.js";

/** @typedef {import("./presence.js").Presence & {error: (Error & {code: string}) | null}} PresenceView */

/** Of no room. @type {Readonly<PresenceView>} */
export const NO_PRESENCE = Object.freeze({ ...NOBODY, error: null });

/**
 * Who is in a room, as a store; all components have one subscription.
 * @param {import("./channels.js").Channels} channels @param {string} name with or without `presence:`
 */
export function presenceOf(channels, name) {
  const channel = presenceChannel(name);
  let now = /** @type {PresenceView} */ (NO_PRESENCE);
  let known = NOBODY;
  return {
    /** @param {() => void} listener @returns {() => void} */
    subscribe: (listener) => channels.use(channel, { changed: listener }),
    /** The same object while nothing has changed. @returns {PresenceView} */
    get() {
      const found = channels.peek(channel);
      const view = found?.presence?.view ?? NOBODY;
      const error = found?.error ?? null;
      if (view !== known || error !== now.error) {
        known = view;
        now = { ...view, error, ...(error ? { status: /** @type {const} */ ("refused") } : {}) };
      }
      return now;
    },
  };
}

/** Whether somebody is there. @param {PresenceView} view @param {string} user */
export const isOnline = ({ members }, user) => members.some((one) => one.user === user);
