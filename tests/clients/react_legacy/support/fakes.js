// A clock that stands still until it is moved, and sockets that do what a test says.

/** @implements {import("../../../../clients/react/src/legacy/client/types.js").Clock} */
export class FakeClock {
  time = 0;
  value = 0.5;
  #timers = new Map();
  #number = 0;

  now = () => this.time;
  random = () => this.value;
  set = (run, ms) => {
    this.#timers.set((this.#number += 1), { run, due: this.time + ms });
    return this.#number;
  };
  clear = (number) => void this.#timers.delete(number);

  /** How long until each timer rings, ms. */
  get waits() {
    return [...this.#timers.values()].map(({ due }) => due - this.time).sort((one, other) => one - other);
  }

  /** Moves on, and rings what is due, in order. */
  pass(ms) {
    const end = this.time + ms;
    for (;;) {
      const due = [...this.#timers].filter(([, timer]) => timer.due <= end).sort(([, one], [, other]) => one.due - other.due)[0];
      if (!due) break;
      this.#timers.delete(due[0]);
      this.time = Math.max(this.time, due[1].due);
      due[1].run();
    }
    this.time = end;
  }
}

/** A WebSocket class whose objects are kept in `made`. */
export function fakeSockets() {
  return class FakeSocket {
    static made = [];
    static get last() {
      return this.made.at(-1);
    }
    readyState = 0;
    sent = [];
    closes = [];

    constructor(url) {
      this.url = url;
      if (!/^wss?:/.test(url)) throw new SyntaxError("no address of a WebSocket");
      this.constructor.made.push(this);
    }
    send(text) {
      if (this.broken) throw new Error("broken");
      this.sent.push(text);
    }
    close(code, reason) {
      this.readyState = 2;
      this.closes.push([code, reason]);
    }
    // what the other side does
    open() {
      this.readyState = 1;
      this.onopen?.({});
    }
    say(frame) {
      this.onmessage?.({ data: typeof frame === "string" ? frame : JSON.stringify(frame) });
    }
    end(code = 1006, reason = "", wasClean = code !== 1006) {
      this.readyState = 3;
      this.onclose?.({ code, reason, wasClean });
    }
    greet() {
      this.open();
      this.say({ type: "connection_established", message: "hello" });
      return this;
    }
    get frames() {
      return this.sent.map((text) => JSON.parse(text));
    }
  };
}
