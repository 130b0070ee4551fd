/** @typedef {import("./types.js").Message} Message */

const named = (/** @type {unknown} */ value) => (typeof value === "string" && value ? value : undefined);

/**
 * Brings a frame into the one shape. It is recognised by `event_type`, `action` or `type`, never by `event`
 * (legacy-wire.md section 6.8). Where there is no `data`, the frame's other keys are that.
 * @param {Record<string, any>} frame @returns {Message | null} null: it has no name
 */
export function adaptMessage(frame) {
  const { event_type, action, type } = frame;
  const name = named(event_type) ?? named(action) ?? named(type);
  if (!name) return null;
  return {
    ...frame,
    event_type: name,
    action: named(action) ?? name,
    type: named(type) ?? name,
    data: frame.data === undefined ? rest(frame) : frame.data,
  };
}

/** @param {Record<string, any>} frame */
function rest({ event: _event, event_type: _eventType, action: _action, type: _type, timestamp: _time, ...others }) {
  return others;
}

/** Whether it answers a heartbeat. @param {Message} message */
export const isAnswer = ({ event_type }) => event_type === "pong" || event_type === "heartbeat";
