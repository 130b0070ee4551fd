// What a page shows of a client, without a framework: values and who listens to them. `@dualcast/react` and
// `@dualcast/vue` are bindings of these; listening to nothing while nobody looks.

/** @typedef {import("./hub.js").Hub} Hub */
/** @typedef {import("./connection.js").Connection} Connection */
/** @typedef {import("./channels.js").Publication} Publication */
/** @typedef {import("./channels.js").Gap} Gap */
/** @typedef {import("./channel_feed.js").Feed} Feed */
/** @typedef {import("./presence_feed.js").PresenceView} PresenceView */
/** @typedef {import("./inbox_state.js").Notification} Notification */
/** @typedef {import("./inbox_list.js").ListView} ListView */
/** @typedef {import("./inbox_list.js").ListOptions} ListOptions */
/** @typedef {import("./labels.js").Labels} Labels */
export { ChannelFeed, NOTHING } from "./channel_feed.js";
export { OFF } from "./connection.js";
export { KEYS, moveFocus } from "./focus.js";
export { hubOf } from "./hub.js";
export { NO_BADGE, inboxActions } from "./inbox.js";
export { LOADING } from "./inbox_list.js";
export { isUnread } from "./inbox_state.js";
export { EN, ZH, labelsOf, timeText } from "./labels.js";
export { safeLink } from "./links.js";
export { NO_PRESENCE, isOnline, presenceOf } from "./presence_feed.js";
export { SeenMarks } from "./seen.js";
