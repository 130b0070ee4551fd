// What the state machine is made of: its states, events and effects, and which links a state asks for.

import { TIMING } from "./timing.js";

/** @typedef {"ws" | "sse"} Name */
/** @typedef {keyof typeof LINKS} LinkState */
/**
 * @typedef {object} Link
 * @property {LinkState} state
 * @property {number} gen of the connection there is or was; what comes from another is too late
 * @property {number} attempts failed since it last worked
 * @property {number} since when it was welcomed, ms
 * @property {number} heartbeat ms
 * @property {boolean} firm the wait was set by the server: nothing shortens it
 * @property {boolean} fresh the next attempt needs a new token
 * @property {number} due when its wait is over, ms
 * @property {number} limit of its timer, ms
 * @property {number} retry what the stream said of reconnects, ms; 0: nothing
 * @property {number} told when its token was last renewed, ms
 */
/**
 * @typedef {object} State
 * @property {boolean} asked the application wants to be connected
 * @property {boolean} leader this page is the one that connects
 * @property {boolean} frozen
 * @property {{code: number, reason: string} | null} stopped
 * @property {string} stage "" : not known yet
 * @property {boolean} gone SSE was answered 204
 * @property {Link} ws
 * @property {Link} sse
 * @property {{ws: boolean, sse: boolean}} has what this page can open
 * @property {number} gens
 * @property {number} strikes failures of WebSocket in a row, by weight
 * @property {boolean} proven a WebSocket has worked on this page
 * @property {boolean} settled the WebSocket there is has worked for a while
 * @property {{reason: string} | null} demoted WebSocket does not get through: SSE carries
 * @property {boolean} outage while demoted SSE failed, too: then it was no fault of WebSocket
 * @property {number} probes that failed
 * @property {number} flips between transports at the server's word, since the last welcome
 * @property {boolean} standby keep the stream beside a working WebSocket
 * @property {boolean} strict a refused stream is final
 * @property {Readonly<import("./timing.js").Timing>} timing
 */
/**
 * @typedef {{now: number, random: number} & (
 *   | {type: "connect" | "disconnect" | "online" | "offline" | "visible" | "freeze" | "resume" | "channels" | "token"}
 *   | {type: "leader", leader: boolean}
 *   | {type: "opening" | "opened" | "refreshed", link: Name, gen: number}
 *   | {type: "frame", link: Name, gen: number, frame: {type: string, [field: string]: any}}
 *   | {type: "closed", link: Name, gen: number, code: number, reason: string, status?: number, retryMs?: number,
 *      refused?: boolean, channels?: string[]}
 *   | {type: "retry", link: Name, gen: number, ms: number}
 *   | {type: "timer", name: Name, silentMs: number, lateMs?: number}
 * )} Event
 */
/**
 * @typedef {(
 *   | {type: "open", link: Name, gen: number, fresh: boolean, fallbackReason: string}
 *   | {type: "close", link: Name, gen: number}
 *   | {type: "timer", name: Name, ms: number}
 *   | {type: "cancel", name: Name}
 *   | {type: "ping", link: Name}
 *   | {type: "refresh", link: Name, gen: number}
 *   | {type: "remember", reason: string | null, ms: number}
 *   | {type: "fallback", reason: string}
 * )} Effect
 */

/**
 * States of a link, and what it is called when the one timer of a state ends the connection (SSE tells it to the
 * server as `fallback_reason`). In `idle` there is no timer, in `idle` and `waiting` no connection.
 */
export const LINKS = {
  idle: "",
  waiting: "",
  preparing: "credentials",
  opening: "timeout",
  greeting: "silent",
  live: "stale",
  asked: "stale",
};
export const NAMES = /** @type {const} */ (["ws", "sse"]);

/** @param {Partial<State>} [given] @returns {State} */
export function initial(given = {}) {
  /** @type {Link} */
  const link = {
    state: "idle",
    gen: 0,
    attempts: 0,
    since: 0,
    heartbeat: 25_000,
    firm: false,
    fresh: false,
    due: 0,
    limit: 0,
    retry: 0,
    told: -Infinity,
  };
  return {
    asked: false,
    leader: true,
    frozen: false,
    stopped: null,
    stage: "",
    gone: false,
    ws: { ...link },
    sse: { ...link },
    has: { ws: true, sse: true },
    gens: 0,
    strikes: 0,
    proven: false,
    settled: false,
    demoted: null,
    outage: false,
    probes: 0,
    flips: 0,
    standby: false,
    strict: false,
    timing: TIMING,
    ...given,
  };
}

/** Whether it is to be connected at all. @param {State} s */
export const isActive = (s) => s.asked && s.leader && !s.frozen && !s.stopped;

/** Whether there is a connection, were it only begun. @param {Link} link */
export const isOpen = (link) => LINKS[link.state] !== "";

/** Whether it was welcomed and lives. @param {Link} link */
export const isUp = (link) => link.state === "live" || link.state === "asked";

/** Which links there should be. @param {State} s @returns {{ws: boolean, sse: boolean}} */
export function wanted(s) {
  if (!isActive(s)) return { ws: false, sse: false };
  const sse = s.has.sse && !s.gone;
  // A page leaves a transport only when the other one is there.
  const ws = s.has.ws && (s.stage !== "sse" || (isUp(s.ws) && sse && !isUp(s.sse)));
  const beside = s.stage === "shadow" || s.standby || s.demoted !== null || (isUp(s.sse) && !s.settled);
  return { ws, sse: sse && (!s.has.ws || s.stage === "sse" || beside) };
}
