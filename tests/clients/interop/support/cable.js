// The network between clients and a server: it can be cut, and it knows what was asked.

import { connect, createServer } from "node:net";

const BLANK = "\r\n\r\n";
/** What the server sends on a quiet stream: a block that moves the position, or a comment. One chunk. */
const BEAT = /\r\n(?:id: [^\n]+|:)\n\n\r\n/g;
const COMMENT = "e\r\n: keep-alive\n\n\r\n";

export class Cable {
  /** Heads of requests in the order they came. @type {string[]} */
  heads = [];
  /** Target of a request → heartbeats that came for it. @type {Map<string, number>} */
  #beats = new Map();
  #lines = new Set();
  #door;

  /** @param {number} port of the server on this machine */
  static async to(port) {
    const cable = new Cable();
    cable.#door = createServer((near) => cable.#carry(near, port));
    await new Promise((resolve) => cable.#door.listen(0, "127.0.0.1", resolve));
    cable.host = `127.0.0.1:${cable.#door.address().port}`;
    return cable;
  }

  #carry(near, port) {
    const far = connect(port, "127.0.0.1");
    const ends = [near, far];
    for (const end of ends) {
      this.#lines.add(end);
      end.on("error", () => {});
      end.on("close", () => {
        this.#lines.delete(end);
        for (const one of ends) one.destroy();
      });
    }
    near.on("data", (data) => {
      const text = data.toString("latin1");
      if (!text.startsWith("GET ")) return;
      this.heads.push(text.split(BLANK)[0]);
      near.target = text.split(" ", 2)[1];
    });
    far.on("data", (data) => {
      const found = data.toString("latin1").match(BEAT);
      if (found) this.#beats.set(near.target, (this.#beats.get(near.target) ?? 0) + found.length);
    });
    near.pipe(far);
    far.pipe(near);
  }

  /** Heartbeats of the stream whose target has `mark` in it. @param {string} mark */
  beats(mark) {
    return [...this.#beats].find(([target]) => target.includes(mark))?.[1] ?? 0;
  }

  /** A comment line on every stream, as a proxy may add one; nothing is on its way meanwhile. */
  comment() {
    for (const end of this.#lines) if (end.target) end.write(COMMENT);
  }

  /** Heads of the requests whose target has `mark` in it. @param {string} mark */
  asked(mark) {
    return this.heads.filter((head) => head.split("\r\n", 1)[0].includes(mark));
  }

  /** Breaks every connection there is. */
  cut() {
    for (const end of this.#lines) end.destroy();
  }

  async close() {
    this.cut();
    await new Promise((resolve) => this.#door.close(resolve));
  }
}

/** The value of a header, or "". @param {string} head @param {string} name */
export function header(head, name) {
  const line = head.split("\r\n").find((one) => one.toLowerCase().startsWith(`${name.toLowerCase()}:`));
  return line ? line.slice(name.length + 1).trim() : "";
}
