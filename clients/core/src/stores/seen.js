/** @typedef {import("./inbox_state.js").Notification} Notification */

/**
 * Tells the server what a user was shown: each once while the list is open, whatever it answers, and what comes while
 * it has not answered in one command. A refusal of that is nobody's business.
 */
export class SeenMarks {
  #inbox;
  /** @type {Set<string>} */
  #told = new Set();
  /** @type {readonly Notification[] | null} */
  #shown = null;
  #busy = false;

  /** @param {import("./inbox.js").Inbox} inbox */
  constructor(inbox) {
    this.#inbox = inbox;
  }

  /** @param {readonly Notification[] | null} notifications what is shown now; null: nothing */
  show(notifications) {
    this.#shown = notifications;
    // What has left the list need not be remembered.
    this.#told = new Set(notifications?.map(({ id }) => id).filter((id) => this.#told.has(id)));
    this.#tell();
  }

  #tell() {
    const unseen = this.#shown?.filter(({ id, state }) => state === "unseen" && !this.#told.has(id)) ?? [];
    if (this.#busy || !unseen.length) return;
    const ids = unseen.map(({ id }) => id);
    for (const id of ids) this.#told.add(id);
    this.#busy = true;
    void this.#inbox.mark("seen", ids, true).then(() => {
      this.#busy = false;
      this.#tell();
    });
  }
}
