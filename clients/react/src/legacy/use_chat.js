import { CLOCK } from "@dualcast/client/src/engine.js";
import { randomId } from "@dualcast/client/src/ids.js";
import { Timers } from "@dualcast/client/src/timers.js";
import { useCallback, useEffect, useInsertionEffect, useMemo, useReducer, useRef } from "react";
import { createChatApi } from "./chat/api.js";
import { ReadMarks } from "./chat/read_marks.js";
import { chatReducer, initialChatState, isOther } from "./chat/state.js";
import { MAX_MESSAGES } from "./chat/types.js";
import { usePageSocket } from "./page_context.js";

/**
 * @typedef {object} ChatOptions
 * @property {boolean} [history] false: what was said before, or while there was no connection, is not loaded
 * @property {typeof fetch} [fetch] in place of the global one
 */

const TELL_MS = 3_000;

/**
 * What is kept, back to what is known already; of a conversation of which nothing is known, one page.
 * @param {ReturnType<typeof createChatApi>} api @param {string} conversationId @param {ReadonlySet<string>} known ids
 * @param {AbortSignal} signal
 */
async function missed(api, conversationId, known, signal) {
  const found = [];
  let before = 0;
  for (;;) {
    const { messages, next } = await api.history(conversationId, before, signal);
    found.push(...messages);
    if (!next || !known.size || found.length >= MAX_MESSAGES || messages.some(({ id }) => known.has(id))) return found;
    before = next;
  }
}

/**
 * One conversation on a page whose entry has the feature `messaging`. A socket of this contract brings nothing that was
 * said while it was away: that is loaded each time it is back.
 * @param {string} conversationId
 * @param {ChatOptions} [options]
 */
export function useChat(conversationId, { history = true, fetch: fetcher } = {}) {
  const { socket, snapshot } = usePageSocket();
  const { session, isConnected } = snapshot;
  const [kept, dispatch] = useReducer(chatReducer, conversationId, initialChatState);
  const state = isOther(kept, conversationId, session) ? initialChatState(conversationId, session) : kept;
  const typingEnabled = snapshot.config.features.includes("typing_indicator");
  const api = useMemo(() => createChatApi({ url: socket.url, getToken: () => socket.auth.getToken(), fetch: fetcher }), [socket, fetcher]);

  useEffect(() => {
    dispatch({ type: "open", conversationId, session });
    return socket.onMessage((message) => dispatch({ type: "frame", message, now: Date.now() }));
  }, [socket, conversationId, session]);

  const shown = useRef(state.messages);
  useInsertionEffect(() => {
    shown.current = state.messages;
  });
  useEffect(() => {
    if (!isConnected || !history) return;
    const leaving = new AbortController();
    const known = new Set(shown.current.filter(({ status }) => !status).map(({ id }) => id));
    missed(api, conversationId, known, leaving.signal).then(
      (messages) => leaving.signal.aborted || dispatch({ type: "history", messages }),
      () => {}, // an older server has none; what comes live is shown all the same
    );
    return () => leaving.abort();
  }, [api, conversationId, isConnected, history]);

  const next = Math.min(...Object.values(state.typing));
  useEffect(() => {
    if (next === Infinity) return;
    const timer = setTimeout(() => dispatch({ type: "tick", now: Date.now() }), Math.max(0, next - Date.now()) + 50);
    return () => clearTimeout(timer);
  }, [next]);

  const post = useCallback(
    /** @param {import("./chat/types.js").OutgoingMessage & {id: string}} message @returns {Promise<boolean>} */
    async (message) => {
      dispatch({ type: "sending", message, now: Date.now() });
      try {
        await api.sendMessage(conversationId, { ...message, ...(socket.connectionId && { exclude_connection_id: socket.connectionId }) });
        dispatch({ type: "sent", id: message.id });
        return true;
      } catch {
        dispatch({ type: "failed", id: message.id });
        return false;
      }
    },
    [api, conversationId, socket],
  );

  const marks = useMemo(() => new ReadMarks((ids) => api.markRead(conversationId, ids), new Timers(CLOCK)), [api, conversationId]);
  useEffect(() => () => marks.stop(), [marks]);
  const markRead = useCallback((/** @type {readonly string[]} */ messageIds) => marks.add(messageIds), [marks]);

  const told = useRef(0);
  const setTyping = useCallback(
    (/** @type {boolean} */ isTyping) => {
      const now = Date.now();
      if (!typingEnabled || (isTyping && now - told.current < TELL_MS) || (!isTyping && !told.current)) return;
      told.current = isTyping ? now : 0;
      api.sendTyping(conversationId, isTyping).catch(() => {}); // the next one says it again
    },
    [api, conversationId, typingEnabled],
  );

  return {
    messages: state.messages,
    typing: Object.keys(state.typing),
    setTyping,
    /** @param {string | Record<string, any>} content @param {Partial<import("./chat/types.js").OutgoingMessage>} [more] @returns {Promise<boolean>} false: shown as `failed` */
    send: (content, more) => post({ id: randomId(), ...more, content }),
    /** A message that failed, once more. @param {import("./chat/types.js").ChatMessage} message */
    resend: ({ id, content, message_type }) => post({ id, content, message_type }),
    markRead,
  };
}
