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

/** Strikes after which SSE takes over; more where WebSocket has worked before. */
export const STRIKES = 2;
export const STRIKES_PROVEN = 3;
/** What a new token may cure. */
const NEED_TOKEN = new Set(/** @type {number[]} */ ([CLOSE.UNAUTHORIZED, CLOSE.FORBIDDEN, CLOSE.REVOKED]));

/** What other channels may cure. */
const FOR_CHANNELS = new Set(/** @type {number[]} */ ([CLOSE.BAD_REQUEST, CLOSE.FORBIDDEN]));

/** @param {State} state @param {Event} event @returns {[State, Effect[]]} */
export function reduce(state, event) {
  const s = { ...state, ws: { ...state.ws }, sse: { ...state.sse } };
  /** @type {Effect[]} */
  const out = [];
  if (!("gen" in event) || (isOpen(s[event.link]) && s[event.link].gen === event.gen)) {
    /** @type {(s: State, event: any, out: Effect[]) => void} */
    const handle = HANDLERS[event.type];
    handle(s, event, out);
  }
  reconcile(s, event, out);
  return [s, out];
}

/** @type {{[T in Event["type"]]: (s: State, event: Event & {type: T}, out: Effect[]) => void}} */
const HANDLERS = {
  connect(s, event, out) {
    s.asked = true;
    s.stopped = null;
    s.frozen = false; // whoever is told to connect runs
    hurry(s, event, out);
  },
  disconnect(s) {
    s.asked = false;
    s.stopped = null;
  },
  leader(s, event) {
    s.leader = event.leader;
  },
  online(s, event, out) {
    wake(s, event, out);
    // Another network, perhaps: what did not get through may now.
    if (s.demoted && s.ws.state === "waiting") wait(s, "ws", event.random * s.timing.spread, event, out);
  },
  visible(s, event, out) {
    if (s.stopped?.code === CLOSE.REPLACED) s.stopped = null;
    wake(s, event, out);
  },
  offline(s, _event, out) {
    doubt(s, out);
  },
  freeze(s) {
    s.frozen = true;
  },
  resume(s, event, out) {
    s.frozen = false;
    wake(s, event, out);
  },
  channels(s, event, out) {
    if (s.stopped && FOR_CHANNELS.has(s.stopped.code)) s.stopped = null;
    // A socket is told by commands; a stream says in its URL what it wants.
    if (isOpen(s.sse)) restart(s, "sse", event, out);
  },
  token(s, event, out) {
    if (s.stopped && NEED_TOKEN.has(s.stopped.code)) s.stopped = null;
    hurry(s, event, out);
  },
  opening(s, event, out) {
    if (s[event.link].state === "preparing") become(s, event.link, "opening", s.timing.open, out);
  },
  opened(s, event, out) {
    if (!isUp(s[event.link])) become(s, event.link, "greeting", s.timing.greet, out);
  },
  refreshed(s, event, out) {
    // A stream cannot be told a new token: it begins again where it was.
    if (event.link === "sse" && isUp(s.sse)) restart(s, "sse", event, out);
  },
  frame(s, event, out) {
    FRAMES[event.frame.type]?.(s, event, out);
  },
  closed(s, event, out) {
    ended(s, event.link, event, out);
  },
  retry(s, event) {
    s[event.link].retry = event.ms;
  },
  timer(s, event, out) {
    expired(s, event.name, event, out);
  },
};

/** @type {Record<string, (s: State, event: Event & {type: "frame"}, out: Effect[]) => void>} */
const FRAMES = {
  welcome(s, event, out) {
    const link = s[event.link];
    link.since = event.now;
    link.heartbeat = (Number(event.frame.heartbeat_s) || 25) * 1_000;
    link.fresh = false;
    s.flips = 0;
    staged(s, event.frame.stage || "fallback");
    if (event.link === "ws") return ask(s, s.timing.settle, out); // one frame is no proof of a way both ways
    become(s, "sse", "live", quietMs(s, "sse"), out);
    if (s.demoted) carried(s, event, out);
  },
  stage(s, event, out) {
    const stage = String(event.frame.stage);
    if (stage === s.stage) return;
    staged(s, stage);
    s.gone = false;
    const want = wanted(s);
    for (const name of NAMES) {
      if (want[name] && s[name].state === "idle") wait(s, name, event.random * s.timing.spread, event, out);
    }
  },
  migrate(s, event, out) {
    const to = event.frame.to === "sse" ? "sse" : "ws";
    if (to === "sse") staged(s, "sse");
    if (!s.has[to] || isOpen(s[to])) return;
    wait(s, to, served(event.frame.after_ms) ?? event.random * s.timing.spread, event, out, true);
  },
  bye(s, event, out) {
    const { code, reason, retry_ms: retryMs } = event.frame;
    ended(s, event.link, { ...event, code: Number(code), reason: String(reason), retryMs }, out);
  },
  drain(s, event, out) {
    const retryMs = event.frame.retry_ms;
    ended(s, event.link, { ...event, code: CLOSE.DRAIN, reason: "drain", retryMs }, out);
  },
  auth_expiring(s, event, out) {
    if (event.now - s[event.link].told < s.timing.settle) return; // a token too short to be of use
    s[event.link].told = event.now;
    out.push({ type: "refresh", link: event.link, gen: event.gen });
  },
  auth_expired(s, event) {
    s[event.link].fresh = true;
  },
};

/**
 * A connection is over, by whichever side.
 * @param {State} s @param {Name} name
 * @param {{now: number, random: number, code: number, reason: string, status?: number, retryMs?: number,
 *   refused?: boolean}} end
 * @param {Effect[]} out
 */
function ended(s, name, end, out) {
  const link = s[name];
  const { first, cap } = s.timing;
  const was = link.state;
  const steady = name === "ws" ? s.settled : isUp(link) && end.now - link.since >= s.timing.settle;
  const other = isUp(s[name === "ws" ? "sse" : "ws"]);
  const asked = served(end.retryMs) ?? (link.retry || undefined);
  if (steady) link.attempts = 0;
  shut(s, name, out);
  if (end.code === CLOSE.TOKEN_EXPIRED) link.fresh = true;

  if (end.status === 204 && (s.has.ws || !s.strict)) return left(s, "ws", end, out);
  if (end.code === CLOSE.STAGE) return left(s, "sse", end, out);
  const refused = action(end.code) === "stop" || (s.strict && end.refused && name === "sse");
  if (refused && !other) return void (s.stopped = { code: end.code, reason: end.reason });
  if (name === "ws" && refused) demote(s, end.reason, out);
  else if (name === "ws" && !steady && was !== "preparing" && !isOurs(end.code)) {
    s.strikes += end.reason === "silent" || end.reason === "timeout" || end.reason === "stale" ? 2 : 1;
    if (s.strikes >= (s.proven ? STRIKES_PROVEN : STRIKES)) demote(s, end.reason || `closed-${end.code}`, out);
  } else if (name === "sse" && s.demoted && was !== "live") {
    s.outage = true;
    if (s.ws.state === "waiting" && s.ws.due - end.now > cap) wait(s, "ws", backoff(2, end.random, first, cap), end, out);
  }

  if (other && (refused || (name === "ws" && s.demoted !== null))) {
    s.probes += 1;
    return probe(s, name, end, out);
  }
  const ms = action(end.code) === "now" && link.attempts === 0 ? 0 : backoff(link.attempts, end.random, first, cap);
  link.attempts += 1;
  wait(s, name, asked ?? ms, end, out, asked !== undefined);
}

/**
 * The other transport carries, so this one is tried again much later.
 * @param {State} s @param {Name} name @param {{now: number, random: number}} event @param {Effect[]} out
 */
function probe(s, name, event, out) {
  const ms = backoff(s.probes, 0.5 + event.random / 2, s.timing.probe, s.timing.probeCap);
  wait(s, name, ms, event, out, true);
  if (name === "ws" && s.demoted) out.push({ type: "remember", reason: s.demoted.reason, ms });
}

/**
 * The server serves this user on the other transport only.
 * @param {State} s @param {Name} to @param {{now: number, random: number, code: number, reason: string}} end
 * @param {Effect[]} out
 */
function left(s, to, end, out) {
  s.gone = to === "ws";
  s.demoted = null;
  s.strikes = 0;
  s.stage = to === "ws" ? "websocket" : "sse";
  if (!s.has[to]) s.stopped = { code: CLOSE.STAGE, reason: "stage" };
  else if (s[to].state === "idle" || s[to].state === "waiting") {
    // The first time at once; a server of two minds must not be asked in a loop.
    wait(s, to, s.flips ? backoff(s.flips, end.random, s.timing.first, s.timing.cap) : 0, end, out);
  }
  s.flips += 1;
}

/** @param {State} s @param {string} reason @param {Effect[]} out */
function demote(s, reason, out) {
  if (s.demoted || !s.has.sse || s.gone) return;
  s.demoted = { reason };
  s.outage = false;
  out.push({ type: "fallback", reason });
}

/** @param {State} s @param {string} stage */
function staged(s, stage) {
  s.stage = stage;
  if (stage !== "sse") return;
  s.demoted = null; // why there was no WebSocket is explained
  s.strikes = 0;
}

/** SSE is there in WebSocket's place. @param {State} s @param {Event} event @param {Effect[]} out */
function carried(s, event, out) {
  const doubtful = s.outage || s.proven; // the network failed, perhaps, and not WebSocket
  s.outage = false;
  if (!s.has.ws || s.stage === "sse" || isOpen(s.ws)) return;
  if (doubtful) wait(s, "ws", event.random * s.timing.spread, event, out, true);
  else if (s.ws.state === "idle" || !s.ws.firm) probe(s, "ws", event, out); // else one is due already
}

/** The WebSocket has answered for a while. @param {State} s @param {Effect[]} out */
function settle(s, out) {
  if (s.demoted) out.push({ type: "remember", reason: null, ms: 0 });
  Object.assign(s, { settled: true, proven: true, demoted: null, outage: false, strikes: 0, probes: 0 });
  s.ws.attempts = 0;
}

/**
 * The one timer of a link has run out.
 * @param {State} s @param {Name} name @param {Event & {type: "timer"}} event @param {Effect[]} out
 */
function expired(s, name, event, out) {
  const link = s[name];
  const quiet = quietMs(s, name);
  if (link.state === "idle") return;
  if (link.state === "waiting") return open(s, name, out);
  // The timers of a hidden page ring late: what was heard since it asked is an answer.
  if (isUp(link) && event.silentMs < (link.state === "live" ? quiet : link.limit + (event.lateMs ?? 0))) {
    if (link.state === "asked" && !s.settled) settle(s, out);
    return become(s, name, "live", Math.max(50, quiet - event.silentMs), out);
  }
  const first = link.state === "asked" && !s.settled && link.limit < s.timing.answer;
  if (name === "ws" && (link.state === "live" || first)) return ask(s, s.timing.answer, out);
  const code = link.state === "live" || (link.state === "asked" && s.settled) ? CLOSE.STALE : 1006;
  ended(s, name, { ...event, code, reason: LINKS[link.state] }, out);
}

/**
 * The network is back, or the page: what waits by its own choice goes on, what lives has to prove it.
 * @param {State} s @param {Event} event @param {Effect[]} out
 */
function wake(s, event, out) {
  hurry(s, event, out);
  doubt(s, out);
}

/** @param {State} s @param {Event} event @param {Effect[]} out */
function hurry(s, event, out) {
  for (const name of NAMES) {
    if (s[name].state === "waiting" && !s[name].firm && !(name === "ws" && s.demoted && isUp(s.sse))) {
      wait(s, name, 0, event, out);
    }
  }
}

/** @param {State} s @param {Effect[]} out */
function doubt(s, out) {
  if (s.ws.state === "live") ask(s, s.timing.doubt, out);
}

/** @param {State} s @param {number} ms @param {Effect[]} out */
function ask(s, ms, out) {
  out.push({ type: "ping", link: "ws" });
  become(s, "ws", "asked", ms, out);
}

/**
 * How long silence is none: a socket is asked then, a stream should have sent a comment.
 * @param {State} s @param {Name} name
 */
const quietMs = (s, name) => s[name].heartbeat + (name === "sse" ? s.timing.slack : 0);

/**
 * @param {State} s @param {Name} name @param {import("./states.js").LinkState} state @param {number} ms
 * @param {Effect[]} out
 */
function become(s, name, state, ms, out) {
  s[name].state = state;
  s[name].limit = ms;
  out.push({ type: "timer", name, ms });
}

/**
 * @param {State} s @param {Name} name @param {number} ms @param {{now: number}} event @param {Effect[]} out
 * @param {boolean} [firm]
 */
function wait(s, name, ms, event, out, firm = false) {
  s[name].firm = firm;
  s[name].due = event.now + ms;
  become(s, name, "waiting", ms, out);
}

/** @param {State} s @param {Name} name @param {Effect[]} out */
function open(s, name, out) {
  const link = s[name];
  link.gen = s.gens += 1;
  if (!s.strict) link.retry = 0;
  const fallbackReason = name === "sse" && !s.outage ? (s.demoted?.reason ?? "") : "";
  out.push({ type: "open", link: name, gen: link.gen, fresh: link.fresh, fallbackReason });
  become(s, name, "preparing", s.timing.prepare, out);
}

/** Leaves a connection or a wait behind. @param {State} s @param {Name} name @param {Effect[]} out */
function shut(s, name, out) {
  const link = s[name];
  if (link.state === "idle") return;
  if (isOpen(link)) out.push({ type: "close", link: name, gen: link.gen });
  if (name === "ws") s.settled = false;
  link.state = "idle";
  link.firm = false;
  out.push({ type: "cancel", name });
}

/** @param {State} s @param {Name} name @param {Event} event @param {Effect[]} out */
function restart(s, name, event, out) {
  shut(s, name, out);
  wait(s, name, 0, event, out);
}

/** Brings the links in line with what is wanted. @param {State} s @param {Event} event @param {Effect[]} out */
function reconcile(s, event, out) {
  if (isActive(s) && !wanted(s).ws && !wanted(s).sse) s.stopped = { code: CLOSE.STAGE, reason: "stage" };
  const want = wanted(s);
  for (const name of NAMES) {
    if (!want[name]) shut(s, name, out);
    else if (s[name].state === "idle") {
      if (name === "ws" && s.demoted) probe(s, name, event, out);
      else wait(s, name, 0, event, out);
    }
  }
}
