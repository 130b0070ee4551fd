import { Parity } from "./parity.js";
import { isUp } from "./states.js";

/** What a stream may be behind; beyond it nobody waits for it. */
const MOST = 1_000;

/** @typedef {import("./engine.js").Frame} Frame */

/**
 * Both links in stage `shadow`. The stream is the truth; what the socket brings is compared with it, and what it
 * brought sooner is kept, in order, for the moment the stream ends or the stage changes: else it would be lost
 * between the two.
 */
export class Shadow {
  parity = new Parity();
  /** Publications by id, gaps by themselves. @type {Map<any, Frame>} */
  #ahead = new Map();

  /**
   * What of a frame is to be passed on now.
   * @param {Frame} frame @param {"ws" | "sse"} link @param {import("./states.js").State} state
   * @param {(id: string) => boolean} knows what was delivered
   * @returns {Frame[]}
   */
  take(frame, link, state, knows) {
    const { type, id, cursor } = frame;
    const isPublication = type === "publication";
    const second = link === "ws" && isShadowed(state);
    if (isPublication) {
      if (state.stage === "shadow" && cursor) this.parity.note(link, /** @type {any} */ (frame), Date.now());
      if (!second) this.#passed(id);
    }
    if (!second) return [frame];
    // Its cursors are not ours: what stands before them may be on its way over the stream.
    if (!isPublication && type !== "gap") return [{ ...frame, cursor: undefined }];
    if (!knows(id)) this.#ahead.set(id ?? frame, frame);
    return this.#ahead.size > MOST ? this.release() : [];
  }

  /** What the socket has brought already: it counts now. */
  release() {
    const frames = [...this.#ahead.values()];
    this.#ahead.clear();
    return frames;
  }

  /** The stream has brought this one, and so all that stands before it in the log. @param {string} id */
  #passed(id) {
    if (!this.#ahead.has(id)) return;
    for (const key of this.#ahead.keys()) {
      this.#ahead.delete(key);
      if (key === id) return;
    }
  }
}

/** Whether the stream is the truth, and the socket is compared with it. @param {import("./states.js").State} s */
export const isShadowed = (s) => s.stage === "shadow" && isUp(s.sse);
