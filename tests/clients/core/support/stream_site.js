// A site of event streams, each path answered as a test says, and sources that write down what they are told.

import { createServer } from "node:http";
import { DualcastEventSource } from "../../../../clients/core/src/event_source.js";

export const TYPE = { "content-type": "text/event-stream" };
export const QUICK = { first: 20, cap: 50 };

export class StreamSite {
  #routes = new Map();
  #open = new Set();
  #number = 0;
  /** path → the requests it had */
  asked = new Map();

  static async start() {
    const site = new StreamSite();
    site.server = createServer((request, response) => {
      const path = request.url.split("?")[0];
      site.asked.set(path, [...(site.asked.get(path) ?? []), request]);
      site.#routes.get(path)?.(request, response, site.asked.get(path).length);
    });
    await new Promise((done) => site.server.listen(0, "127.0.0.1", done));
    site.base = `http://127.0.0.1:${site.server.address().port}`;
    return site;
  }

  close() {
    for (const source of this.#open) source.close();
    this.server.closeAllConnections();
    this.server.close();
  }

  /** A path for `answer`: (request, response, number of the request), or what a stream holds. */
  serve(answer, more = {}) {
    const path = `/${(this.#number += 1)}`;
    this.#routes.set(path, typeof answer === "function" ? answer : sends(answer, more));
    return path;
  }

  /** A source for it: `told` has its states and the data of messages, `events` all of types in `types`. */
  source(answer, { types = ["message"], url = "", ...options } = {}) {
    const path = this.serve(answer, options);
    const found = new DualcastEventSource(this.base + path + url, { timing: QUICK, ...options });
    Object.assign(found, { path, told: [], events: [] });
    for (const type of ["open", "error"]) found.addEventListener(type, () => found.told.push(`${type} ${found.readyState}`));
    for (const type of types) found.addEventListener(type, (event) => found.events.push(event));
    found.addEventListener("message", ({ data }) => found.told.push(data));
    this.#open.add(found);
    return found;
  }
}

/** Answers with a stream that holds `text` (or bytes). */
export const sends =
  (text, { end = false, headers = TYPE, status = 200 } = {}) =>
  (_, response) => {
    response.writeHead(status, headers);
    response.write(text);
    if (end) response.end();
  };
