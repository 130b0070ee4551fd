/** @typedef {import("../client.js").DualcastClient} DualcastClient */
/**
 * Status of the client (see its `api.js`), and `connected`: publications come.
 * @typedef {DualcastClient["status"] & {connected: boolean}} Connection
 */

/** Before there is a page: on a server, and while its HTML is taken over. @type {Connection} */
export const OFF = { status: "off", transport: null, stage: "", leader: true, stopped: null, connected: false };

/** @param {Connection} now @param {DualcastClient["status"]} next */
const isSame = (now, next) =>
  now.status === next.status &&
  now.transport === next.transport &&
  now.stage === next.stage &&
  now.leader === next.leader &&
  now.stopped === next.stopped;

/**
 * The connection of `client`: the same object while nothing has changed.
 * @param {DualcastClient} client
 */
export function connectionOf(client) {
  let now = OFF;
  return {
    /** @param {() => void} listener @returns {() => void} takes it off again */
    subscribe: (listener) => client.on("connection", listener),
    get() {
      const next = client.status;
      if (!isSame(now, next)) now = { ...next, connected: next.status === "live" };
      return now;
    },
  };
}
