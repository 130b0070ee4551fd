// The two kinds of connection of the test page: a WebSocket and an EventSource, each told what to do with what it gets.
// A line calls `to.state(name, why)`, `to.frame(text, name)` for what arrives (`name`: the event of a stream),
// and `to.note(text)` for what the server never said.

const FIRST_WAIT_MS = 1000;
const LAST_WAIT_MS = 15000;
/** Closes after which coming back changes nothing. */
const FINAL = new Set([1000, 1008, 4001, 4003, 4004, 4409]);
/** Event names of the older streams, and of the own protocol's. A stream cannot be asked for "any name". */
const EVENTS = [
  "connected", "notification", "heartbeat", "replaced", "progress", "completed", "failed", "finished", "error",
  "welcome", "state", "inbox", "task", "batch", "presence", "gap", "status", "stage", "migrate", "drain", "bye",
  "auth_expiring", "auth_expired", "sync_update", "knowledge_update", "system_message", "admin_broadcast",
  "room_message", "topic_message", "progress_frame", "conversation.message", "conversation.typing",
  "conversation.read", "conversation.system", "conversation.direct", "conversation.mobile", "conversation.reply",
  "conversation.participants",
];
const LAST_EVENTS = new Set(["finished", "replaced"]);

/** What both have in common: being wanted, and coming back later and later. */
class Line {
  constructor(to) {
    this.to = to;
    this.url = null;
    this.timer = 0;
    this.attempts = 0;
  }

  get wanted() {
    return this.url !== null;
  }

  /** Connects to what `url()` (it may be a promise) gives, also after each loss. */
  open(url) {
    this.close();
    this.url = url;
    this.attempts = 0;
    this.start();
  }

  close() {
    clearTimeout(this.timer);
    this.url = null;
    this.stop();
    this.to.state("closed");
  }

  async start() {
    const url = this.url;
    this.to.state("connecting");
    try {
      const address = await url();
      if (this.url === url) this.connect(address);
    } catch (error) {
      if (this.url === url) this.ended(error.message);
    }
  }

  opened() {
    this.attempts = 0;
    this.to.state("open");
  }

  /** Over and out, until somebody connects again. */
  ended(why) {
    this.url = null;
    this.to.note(why);
    this.to.state("closed");
  }

  again(why) {
    const wait = Math.min(FIRST_WAIT_MS * 2 ** this.attempts++, LAST_WAIT_MS);
    this.to.note(`${why}; again in ${wait / 1000} s`);
    this.to.state("connecting");
    this.timer = setTimeout(() => this.start(), wait);
  }
}

export class SocketLine extends Line {
  connect(address) {
    const socket = new WebSocket(address.replace(/^http/, "ws"));
    this.socket = socket;
    socket.onopen = () => this.opened();
    socket.onmessage = (event) => this.to.frame(typeof event.data === "string" ? event.data : "(binary)", "");
    socket.onclose = (event) => {
      if (this.socket !== socket) return;
      this.socket = null;
      const why = `closed by code ${event.code} ${event.reason}`.trim();
      if (FINAL.has(event.code)) this.ended(why);
      else this.again(why);
    };
  }

  stop() {
    const socket = this.socket;
    this.socket = null;
    socket?.close(1000, "Manual disconnect");
  }

  /** False: there is no open socket. */
  send(text) {
    if (this.socket?.readyState !== WebSocket.OPEN) return false;
    this.socket.send(text);
    return true;
  }
}

export class StreamLine extends Line {
  connect(address) {
    const source = new EventSource(address);
    this.source = source;
    source.onopen = () => this.opened();
    for (const name of EVENTS) {
      source.addEventListener(name, (event) => {
        if (this.source !== source || event.data === undefined) return; // a lost connection is an `error` without data
        this.to.frame(event.data, name);
        if (LAST_EVENTS.has(name)) {
          this.stop();
          this.ended(`closed after ${name}`);
        }
      });
    }
    source.onerror = (event) => {
      if (this.source !== source || event.data !== undefined) return;
      if (source.readyState === EventSource.CLOSED) {
        this.stop();
        this.ended("refused by the server");
      } else {
        this.to.note("lost; the browser connects again by itself");
        this.to.state("connecting");
      }
    };
  }

  stop() {
    this.source?.close();
    this.source = null;
  }
}
