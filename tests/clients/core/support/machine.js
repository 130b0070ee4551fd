// The state machine with its timers and a clock, and without connections: what a driver would say, a test says.

import { reduce } from "../../../../clients/core/src/reducer.js";
import { LINKS, NAMES, initial, isOpen, isActive, isUp, wanted } from "../../../../clients/core/src/states.js";

/** mulberry32: the same numbers for the same seed. */
export function random(seed) {
  return () => {
    seed = (seed + 0x6d2b79f5) | 0;
    let t = Math.imul(seed ^ (seed >>> 15), 1 | seed);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 4_294_967_296;
  };
}

export class Machine {
  constructor(given = {}, chance = () => 0.5) {
    this.state = initial(given);
    this.now = 1_000;
    this.chance = chance;
    /** name → when it rings */
    this.timers = new Map();
    /** link → gen of the connection that is open */
    this.open = new Map();
    this.effects = [];
    /** effects of the last event */
    this.last = [];
  }

  tell(event) {
    const frozen = JSON.stringify(this.state);
    const [state, effects] = reduce(this.state, { ...event, now: this.now, random: this.chance() });
    if (JSON.stringify(this.state) !== frozen) throw new Error("the reducer changed the state it was given");
    this.state = state;
    this.last = effects;
    for (const effect of effects) this.#run(effect);
    this.check();
    return effects;
  }

  #run(effect) {
    this.effects.push(effect);
    if (effect.type === "timer") this.timers.set(effect.name, this.now + effect.ms);
    else if (effect.type === "cancel") this.timers.delete(effect.name);
    else if (effect.type === "open") {
      if (this.open.has(effect.link)) throw new Error(`double connect of ${effect.link}`);
      this.open.set(effect.link, effect.gen);
    } else if (effect.type === "close") {
      if (this.open.get(effect.link) !== effect.gen) throw new Error(`closes what is not open: ${effect.link}`);
      this.open.delete(effect.link);
    }
  }

  /** What holds after every event. */
  check() {
    const s = this.state;
    const want = wanted(s);
    for (const name of NAMES) {
      const link = s[name];
      if (!(link.state in LINKS)) throw new Error(`unknown state ${link.state}`);
      if (this.timers.has(name) !== (link.state !== "idle")) throw new Error(`${name} is ${link.state}, its timer ${this.timers.has(name) ? "runs" : "does not"}`);
      if (this.open.has(name) !== isOpen(link)) throw new Error(`${name} is ${link.state}, its connection ${this.open.has(name)}`);
      if (isOpen(link) && this.open.get(name) !== link.gen) throw new Error(`${name}: another connection than it thinks`);
      if (want[name] !== (link.state !== "idle")) throw new Error(`${name} is ${link.state}, wanted: ${want[name]}`);
    }
    if (isActive(s) && !want.ws && !want.sse) throw new Error("active, and nothing to wait for");
    if (!isActive(s) && this.timers.size) throw new Error("a timer leaked");
  }

  /** Lets the time pass to the next timer (or `name`'s) and rings it. `silentMs`: since something was heard. */
  ring(name, silentMs) {
    const next = name ?? [...this.timers].sort((a, b) => a[1] - b[1])[0]?.[0];
    if (next === undefined || !this.timers.has(next)) return false;
    const due = this.timers.get(next);
    const waited = due - this.now;
    this.now = Math.max(this.now, due);
    this.timers.delete(next);
    this.tell({ type: "timer", name: next, silentMs: silentMs ?? waited });
    return true;
  }

  pass(ms) {
    this.now += ms;
  }

  gen(link) {
    return this.open.get(link);
  }

  opened(link) {
    this.tell({ type: "opening", link, gen: this.gen(link) });
    this.tell({ type: "opened", link, gen: this.gen(link) });
  }

  frame(link, frame) {
    this.tell({ type: "frame", link, gen: this.gen(link), frame });
  }

  welcome(link, stage = "fallback") {
    this.opened(link);
    this.frame(link, { type: "welcome", stage, heartbeat_s: link === "ws" ? 25 : 15 });
  }

  /** The way a connection ends: the driver's connection is gone. */
  closed(link, code = 1006, reason = "", more = {}) {
    const gen = this.gen(link);
    if (this.state[link].state === "preparing") this.tell({ type: "opening", link, gen });
    this.tell({ type: "closed", link, gen, code, reason, ...more });
  }

  /** Connected over a settled WebSocket. */
  settled(stage) {
    this.tell({ type: "connect" });
    this.ring("ws");
    this.welcome("ws", stage);
    this.ring("ws", 10);
    return this;
  }

  /** Connected over SSE, since WebSocket failed. */
  fallen() {
    this.tell({ type: "connect" });
    this.ring("ws");
    this.opened("ws");
    this.ring("ws"); // opens, and says nothing
    this.ring("sse");
    this.welcome("sse");
    return this;
  }

  get up() {
    return NAMES.filter((name) => isUp(this.state[name])).join("+");
  }

  of(type) {
    return this.effects.filter((effect) => effect.type === type);
  }
}
