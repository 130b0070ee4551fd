import { adaptMessage, isAnswer } from "./message_adapter.js";
import { deserialize } from "./serializer.js";

/**
 * What becomes of the data of one MessageEvent: it shows life, and a message of the contracts goes to `deliver`.
 * Answers to heartbeats end here unless `answers`, since pages of `conversations` never saw them.
 * @param {object} to
 * @param {(answer: boolean) => void} to.alive called first, whatever it was
 * @param {(message: import("./types.js").Message) => void} to.deliver
 * @param {boolean} [to.answers]
 * @returns {(data: unknown) => void}
 */
export function messageEventHandler({ alive, deliver, answers = false }) {
  return (data) => {
    const frame = deserialize(data);
    const message = frame && adaptMessage(frame);
    const answer = !!message && isAnswer(message);
    alive(answer);
    if (message && (answers || !answer)) deliver(message);
  };
}
