// The state machine: (state, event) -> [state, effects]. Pure: time and chance come with the event.
//
// Two links, `ws` and `sse`, each in a state of its own; which of them are wanted follows from the stage and from
// what has failed (`wanted`). After every event the links are brought in line with that (`reconcile`), so no
// handler opens or closes anything by itself, and no combination of events leaves an active client with nothing
// to wait for.

import { backoff, served } from "./backoff.js";
import { CLOSE, action, isOurs } from "./codes.js";
import { LINKS, NAMES, isOpen, isActive, isUp, wanted } from "./states.js";

/** @typedef {import("./states.js").Name} Name */
/** @typedef {import("./states.js").State} State */
/** @typedef {import("./states.js").Event} Event */
/** @typedef {import("./states.js").Effect} Effect */
/** @typedef {State & {now: number, random: number, out: Effect[]}} Draft the state to be, the moment, the effects so far */

/** Strikes after which SSE takes over; more where WebSocket has worked before. */
export const STRIKES = 2;
export const STRIKES_PROVEN = 3;
/** What a new token may cure. */
const NEED_TOKEN = new Set(/** @type {number[]} */ ([CLOSE.UNAUTHORIZED, CLOSE.FORBIDDEN, CLOSE.REVOKED]));

/** What other channels may cure. */
const FOR_CHANNELS = new Set(/** @type {number[]} */ ([CLOSE.BAD_REQUEST, CLOSE.FORBIDDEN]));

/** @param {State} state @param {Event} event @returns {[State, Effect[]]} */
export function reduce(state, event) {
  /** @type {Draft} */
  const s = { ...state, ws: { ...state.ws }, sse: { ...state.sse }, now: event.now, random: event.random, out: [] };
  if (!("gen" in event) || (isOpen(s[event.link]) && s[event.link].gen === event.gen)) {
    /** @type {(s: Draft, event: any) => void} */
    const handle = HANDLERS[event.type];
    handle(s, event);
  }
  reconcile(s);
  const { now, random, out, ...after } = s;
  return [after, out];
}

/** @type {{[T in Event["type"]]: (s: Draft, event: Event & {type: T}) => void}} */
const HANDLERS = {
  connect(s) {
    s.asked = true;
    s.stopped = null;
    s.frozen = false; // whoever is told to connect runs
    hurry(s);
  },
  disconnect(s) {
    s.asked = false;
    s.stopped = null;
  },
  leader(s, event) {
    s.leader = event.leader;
  },
  online(s) {
    wake(s);
    // Another network, perhaps: what did not get through may now.
    if (s.demoted && s.ws.state === "waiting") wait(s, "ws", s.random * s.timing.spread);
  },
  visible(s) {
    if (s.stopped?.code === CLOSE.REPLACED) s.stopped = null;
    wake(s);
  },
  offline: doubt,
  freeze(s) {
    s.frozen = true;
  },
  resume(s) {
    s.frozen = false;
    wake(s);
  },
  channels(s) {
    if (s.stopped && FOR_CHANNELS.has(s.stopped.code)) s.stopped = null;
    // A socket is told by commands; a stream says in its URL what it wants.
    if (isOpen(s.sse)) restart(s, "sse");
  },
  token(s) {
    if (s.stopped && NEED_TOKEN.has(s.stopped.code)) s.stopped = null;
    hurry(s);
  },
  opening(s, event) {
    if (s[event.link].state === "preparing") become(s, event.link, "opening", s.timing.open);
  },
  opened(s, event) {
    if (!isUp(s[event.link])) become(s, event.link, "greeting", s.timing.greet);
  },
  refreshed(s, event) {
    // A stream cannot be told a new token: it begins again where it was.
    if (event.link === "sse" && isUp(s.sse)) restart(s, "sse");
  },
  frame(s, event) {
    FRAMES[event.frame.type]?.(s, event);
  },
  closed(s, event) {
    ended(s, event.link, event);
  },
  retry(s, event) {
    s[event.link].retry = event.ms;
  },
  timer(s, event) {
    expired(s, event.name, event);
  },
};

/** Of frames it is told these. @type {Record<string, (s: Draft, event: Event & {type: "frame"}) => void>} */
export const FRAMES = {
  welcome(s, event) {
    const link = s[event.link];
    link.since = s.now;
    link.heartbeat = (Number(event.frame.heartbeat_s) || 25) * 1_000;
    link.fresh = false;
    s.flips = 0;
    staged(s, event.frame.stage || "fallback");
    if (event.link === "ws") return ask(s, s.timing.settle); // one frame is no proof of a way both ways
    become(s, "sse", "live", quietMs(s, "sse"));
    if (s.demoted) carried(s);
  },
  stage(s, event) {
    const stage = String(event.frame.stage);
    if (stage === s.stage) return;
    staged(s, stage);
    s.gone = false;
    const want = wanted(s);
    for (const name of NAMES) {
      if (want[name] && s[name].state === "idle") wait(s, name, s.random * s.timing.spread);
    }
  },
  migrate(s, event) {
    const to = event.frame.to === "sse" ? "sse" : "ws";
    if (to === "sse") staged(s, "sse");
    if (!s.has[to] || isOpen(s[to])) return;
    wait(s, to, served(event.frame.after_ms) ?? s.random * s.timing.spread, true);
  },
  bye(s, event) {
    const { code, reason, retry_ms: retryMs, channels } = event.frame;
    ended(s, event.link, { code: Number(code), reason: String(reason), retryMs, channels });
  },
  drain(s, event) {
    const retryMs = event.frame.retry_ms;
    ended(s, event.link, { code: CLOSE.DRAIN, reason: "drain", retryMs });
  },
  auth_expiring(s, event) {
    if (s.now - s[event.link].told < s.timing.settle) return; // a token too short to be of use
    s[event.link].told = s.now;
    s.out.push({ type: "refresh", link: event.link, gen: event.gen });
  },
  auth_expired(s, event) {
    s[event.link].fresh = true;
  },
};

/**
 * A connection is over, by whichever side.
 * @param {Draft} s @param {Name} name
 * @param {{code: number, reason: string, status?: number, retryMs?: number,
 *   refused?: boolean, channels?: string[]}} end
 */
function ended(s, name, end) {
  const link = s[name];
  const { first, cap } = s.timing;
  const was = link.state;
  const steady = name === "ws" ? s.settled : isUp(link) && s.now - link.since >= s.timing.settle;
  const other = isUp(s[name === "ws" ? "sse" : "ws"]);
  if (steady) link.attempts = 0;
  // Who says "at once" again and again is not to be asked in a loop.
  const looping = link.attempts && Number(end.retryMs) < first;
  const asked = looping ? undefined : (served(end.retryMs) ?? (link.retry || undefined));
  shut(s, name);
  if (end.code === CLOSE.TOKEN_EXPIRED) link.fresh = true;

  if (end.status === 204 && (s.has.ws || !s.strict)) return left(s, "ws");
  if (end.code === CLOSE.STAGE) return left(s, "sse");
  // It can do without channels that were named.
  const does = end.channels && !s.strict ? "now" : action(end.code);
  const refused = does === "stop" || (s.strict && end.refused && name === "sse");
  if (refused && !other) return void (s.stopped = { code: end.code, reason: end.reason });
  if (name === "ws" && refused) demote(s, end.reason);
  else if (name === "ws" && !steady && was !== "preparing" && !isOurs(end.code)) {
    s.strikes += end.reason === "silent" || end.reason === "timeout" || end.reason === "stale" ? 2 : 1;
    if (s.strikes >= (s.proven ? STRIKES_PROVEN : STRIKES)) demote(s, end.reason || `closed-${end.code}`);
  } else if (name === "sse" && s.demoted && was !== "live") {
    s.outage = true;
    if (s.ws.state === "waiting" && s.ws.due - s.now > cap) wait(s, "ws", backoff(2, s.random, first, cap));
  }

  if (other && (refused || (name === "ws" && s.demoted !== null))) {
    s.probes += 1;
    return probe(s, name);
  }
  const ms = does === "now" && link.attempts === 0 ? 0 : backoff(link.attempts, s.random, first, cap);
  link.attempts += 1;
  wait(s, name, asked ?? ms, asked !== undefined);
}

/**
 * The other transport carries, so this one is tried again much later.
 * @param {Draft} s @param {Name} name
 */
function probe(s, name) {
  const ms = backoff(s.probes, 0.5 + s.random / 2, s.timing.probe, s.timing.probeCap);
  wait(s, name, ms, true);
  if (name === "ws" && s.demoted) s.out.push({ type: "remember", reason: s.demoted.reason, ms });
}

/**
 * The server serves this user on the other transport only.
 * @param {Draft} s @param {Name} to
 */
function left(s, to) {
  s.gone = to === "ws";
  s.demoted = null;
  s.strikes = 0;
  s.stage = to === "ws" ? "websocket" : "sse";
  if (!s.has[to]) s.stopped = { code: CLOSE.STAGE, reason: "stage" };
  else if (s[to].state === "idle" || s[to].state === "waiting") {
    // The first time at once; a server of two minds must not be asked in a loop.
    wait(s, to, s.flips ? backoff(s.flips, s.random, s.timing.first, s.timing.cap) : 0);
  }
  s.flips += 1;
}

/** @param {Draft} s @param {string} reason */
function demote(s, reason) {
  if (s.demoted || !s.has.sse || s.gone) return;
  s.demoted = { reason };
  s.outage = false;
  s.out.push({ type: "fallback", reason });
}

/** @param {Draft} s @param {string} stage */
function staged(s, stage) {
  s.stage = stage;
  if (stage !== "sse") return;
  s.demoted = null; // why there was no WebSocket is explained
  s.strikes = 0;
}

/** SSE is there in WebSocket's place. @param {Draft} s */
function carried(s) {
  const doubtful = s.outage || s.proven; // the network failed, perhaps, and not WebSocket
  s.outage = false;
  if (!s.has.ws || s.stage === "sse" || isOpen(s.ws)) return;
  if (doubtful) wait(s, "ws", s.random * s.timing.spread, true);
  else if (s.ws.state === "idle" || !s.ws.firm) probe(s, "ws"); // else one is due already
}

/** The WebSocket has answered for a while. @param {Draft} s */
function settle(s) {
  if (s.demoted) s.out.push({ type: "remember", reason: null, ms: 0 });
  Object.assign(s, { settled: true, proven: true, demoted: null, outage: false, strikes: 0, probes: 0 });
  s.ws.attempts = 0;
}

/**
 * The one timer of a link has run out.
 * @param {Draft} s @param {Name} name @param {Event & {type: "timer"}} event
 */
function expired(s, name, event) {
  const link = s[name];
  const quiet = quietMs(s, name);
  if (link.state === "idle") return;
  if (link.state === "waiting") return open(s, name);
  // The timers of a hidden page ring late: what was heard since it asked is an answer.
  if (isUp(link) && event.silentMs < (link.state === "live" ? quiet : link.limit + (event.lateMs ?? 0))) {
    if (link.state === "asked" && !s.settled) settle(s);
    return become(s, name, "live", Math.max(50, quiet - event.silentMs));
  }
  const first = link.state === "asked" && !s.settled && link.limit < s.timing.answer;
  if (name === "ws" && (link.state === "live" || first)) return ask(s, s.timing.answer);
  const code = link.state === "live" || (link.state === "asked" && s.settled) ? CLOSE.STALE : 1006;
  ended(s, name, { code, reason: LINKS[link.state] });
}

/**
 * The network is back, or the page: what waits by its own choice goes on, what lives has to prove it.
 * @param {Draft} s
 */
function wake(s) {
  hurry(s);
  doubt(s);
}

/** @param {Draft} s */
function hurry(s) {
  for (const name of NAMES) {
    if (s[name].state === "waiting" && !s[name].firm && !(name === "ws" && s.demoted && isUp(s.sse))) {
      wait(s, name, 0);
    }
  }
}

/** @param {Draft} s */
function doubt(s) {
  if (s.ws.state === "live") ask(s, s.timing.doubt);
}

/** @param {Draft} s @param {number} ms */
function ask(s, ms) {
  s.out.push({ type: "ping", link: "ws" });
  become(s, "ws", "asked", ms);
}

/**
 * How long silence is none: a socket is asked then, a stream should have sent a comment.
 * @param {Draft} s @param {Name} name
 */
const quietMs = (s, name) => s[name].heartbeat + (name === "sse" ? s.timing.slack : 0);

/**
 * @param {Draft} s @param {Name} name @param {import("./states.js").LinkState} state @param {number} ms
 */
function become(s, name, state, ms) {
  s[name].state = state;
  s[name].limit = ms;
  s.out.push({ type: "timer", name, ms });
}

/**
 * @param {Draft} s @param {Name} name @param {number} ms
 * @param {boolean} [firm]
 */
function wait(s, name, ms, firm = false) {
  s[name].firm = firm;
  s[name].due = s.now + ms;
  become(s, name, "waiting", ms);
}

/** @param {Draft} s @param {Name} name */
function open(s, name) {
  const link = s[name];
  link.gen = s.gens += 1;
  if (!s.strict) link.retry = 0;
  const fallbackReason = name === "sse" && !s.outage ? (s.demoted?.reason ?? "") : "";
  s.out.push({ type: "open", link: name, gen: link.gen, fresh: link.fresh, fallbackReason });
  become(s, name, "preparing", s.timing.prepare);
}

/** Leaves a connection or a wait behind. @param {Draft} s @param {Name} name */
function shut(s, name) {
  const link = s[name];
  if (link.state === "idle") return;
  if (isOpen(link)) s.out.push({ type: "close", link: name, gen: link.gen });
  if (name === "ws") s.settled = false;
  link.state = "idle";
  link.firm = false;
  s.out.push({ type: "cancel", name });
}

/** @param {Draft} s @param {Name} name */
function restart(s, name) {
  shut(s, name);
  wait(s, name, 0);
}

/** Brings the links in line with what is wanted. @param {Draft} s */
function reconcile(s) {
  if (isActive(s) && !wanted(s).ws && !wanted(s).sse) s.stopped = { code: CLOSE.STAGE, reason: "stage" };
  const want = wanted(s);
  for (const name of NAMES) {
    if (!want[name]) shut(s, name);
    else if (s[name].state === "idle") {
      if (name === "ws" && s.demoted) probe(s, name);
      else wait(s, name, 0);
    }
  }
}
