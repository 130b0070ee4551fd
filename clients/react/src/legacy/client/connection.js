/** @typedef {import("./types.js").Closed} Closed */
/**
 * @typedef {object} Listeners
 * @property {() => void} open
 * @property {(data: unknown) => void} message
 * @property {(closed: Closed & {clean: boolean}) => void} close once, unless it was closed from here
 */

const CONNECTING = 0;
const OPEN = 1;

/** At most one WebSocket at a time. One that was left is heard no more. */
export class Connection {
  #Socket;
  #timeout;
  #timers;
  #tell;
  /** @type {WebSocket | null} */
  #socket = null;
  #abandoned = 0;

  /**
   * @param {typeof WebSocket} Socket
   * @param {number} timeout ms, from the attempt to the first frame: a socket that opens and carries nothing is none
   * @param {import("@dualcast/client/src/timers.js").Timers} timers
   * @param {Listeners} tell
   */
  constructor(Socket, timeout, timers, tell) {
    this.#Socket = Socket;
    this.#timeout = timeout;
    this.#timers = timers;
    this.#tell = tell;
  }

  /** @param {string} url @throws where no WebSocket may be opened to that address */
  open(url) {
    this.close();
    const socket = new this.#Socket(url);
    this.#socket = socket;
    this.#timers.set("silent", this.#timeout, () => this.drop());
    socket.onopen = () => this.#tell.open();
    socket.onmessage = ({ data }) => {
      this.#timers.clear("silent");
      this.#tell.message(data);
    };
    socket.onerror = () => {}; // `close` follows, and says more
    socket.onclose = ({ code, reason, wasClean }) => {
      this.#leave();
      this.#tell.close({ code, reason, clean: wasClean });
    };
  }

  /** @param {string} text @returns {boolean} false: there is no open socket */
  send(text) {
    if (this.#socket?.readyState !== OPEN) return false;
    try {
      this.#socket.send(text);
      return true;
    } catch {
      return false;
    }
  }

  /** Ends it from here. @param {number} [code] @param {string} [reason] */
  close(code = 1000, reason = "") {
    const socket = this.#leave();
    if (!socket) return;
    if (socket.readyState !== CONNECTING) return socket.close(code, reason);
    // A browser that is told to give up an attempt writes its address, with the token, to the console: this one is
    // closed when it opens. It holds up others to the same host, so it gets no more time than any.
    const name = `abandoned ${(this.#abandoned += 1)}`;
    const end = () => {
      this.#timers.clear(name);
      socket.close(code, reason);
    };
    socket.onopen = socket.onclose = end;
    this.#timers.set(name, this.#timeout, end);
  }

  /** Ends one that is of no use, as if it had broken. */
  drop() {
    const socket = this.#leave();
    if (!socket) return;
    socket.close();
    this.#tell.close({ code: 1006, reason: "", clean: false });
  }

  #leave() {
    const socket = this.#socket;
    this.#socket = null;
    this.#timers.clear("silent");
    if (socket) socket.onopen = socket.onmessage = socket.onclose = null;
    return socket;
  }
}
