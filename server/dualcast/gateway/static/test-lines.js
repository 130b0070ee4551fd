// The two kinds of connection of the test page: a WebSocket and an EventSource, each told what to do with what it gets.
// A line calls `to.state(name, why)`, `to.frame(text, name)` for what arrives (`name`: the event of a stream),
// and `to.note(text)` for what the server never said.

const FIRST_WAIT_MS = 1000;
const LAST_WAIT_MS = 15000;
const ASK_MS = 5000;
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
    this.run = null;
    this.heard = false;
    this.cursor = "";
  }

  get wanted() {
    return this.url !== null;
  }

  /** Connects to what `url(cursor)` (it may be a promise) gives, also after each loss. `cursor`: of the last event, "". */
  open(url) {
    this.close();
    this.url = url;
    this.attempts = 0;
    this.heard = false;
    this.cursor = "";
    this.start();
  }

  close() {
    clearTimeout(this.timer);
    this.url = this.run = null;
    this.stop();
    this.to.state("closed");
  }

  async start() {
    const run = (this.run = {}); // whoever connects twice while the address is asked for gets one connection
    this.to.state("connecting");
    try {
      const address = await this.url(this.cursor);
      if (this.run === run) this.connect(address);
    } catch (error) {
      if (this.run !== run) return;
      const away = error instanceof TypeError; // of `fetch`
      if (away && this.heard) this.again("the server cannot be reached");
      else this.ended(away ? "the server cannot be reached" : error.message);
    }
  }

  /** Something arrived: only that, not being accepted, ends a row of failures. */
  frame(text, name) {
    this.attempts = 0;
    this.heard = true;
    this.to.frame(text, name);
  }

  /** Over and out, until somebody connects again. */
  ended(why) {
    this.url = this.run = null;
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
    socket.onopen = () => this.to.state("open");
    socket.onmessage = (event) => this.frame(typeof event.data === "string" ? event.data : "(binary)", "");
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
    source.onopen = () => this.to.state("open");
    for (const name of EVENTS) {
      source.addEventListener(name, (event) => {
        if (this.source !== source || event.data === undefined) return; // a lost connection is an `error` without data
        this.cursor = event.lastEventId;
        this.frame(event.data, name);
        if (LAST_EVENTS.has(name)) {
          this.stop();
          this.ended(`closed after ${name}`);
        }
      });
    }
    source.onerror = async (event) => {
      if (this.source !== source || event.data !== undefined) return;
      if (source.readyState === EventSource.CLOSED) {
        this.stop();
        const run = this.run;
        const why = await refusal(address);
        if (this.run !== run) return;
        if (this.heard) this.again(why); // a proxy while the server restarts, or a ticket that ended
        else this.ended(why);
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

/** Why a stream is refused: an EventSource does not tell. */
async function refusal(address) {
  const words = "refused by the server";
  try {
    const answer = await fetch(address, { signal: AbortSignal.timeout(ASK_MS) });
    if (answer.ok) return answer.body.cancel().then(() => words);
    return `${words}: ${answer.status} ${(await answer.json()).detail}`;
  } catch {
    return words;
  }
}
