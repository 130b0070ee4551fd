import { serverBase } from "../env.js";

/** @typedef {import("./types.js").OutgoingMessage} OutgoingMessage */

/** A call that did not succeed. `status` of HTTP; 0: the server was not reached, and it may be tried again. */
export class ChatApiError extends Error {
  /** @param {number} status @param {string} detail */
  constructor(status, detail) {
    super(detail);
    this.name = "ChatApiError";
    this.status = status;
  }
}

/**
 * The calls of `/api/v1/chat/{conversation_id}/…` (legacy-wire.md section 6). Each rejects with ChatApiError.
 * @param {object} options
 * @param {string} [options.url] of the server
 * @param {() => string} options.getToken
 * @param {typeof fetch} [options.fetch]
 */
export function createChatApi({ url, getToken, fetch: fetcher }) {
  /** @param {string} path @param {unknown} body undefined: GET @param {AbortSignal} [signal] @returns {Promise<any>} */
  async function call(path, body, signal) {
    const token = getToken();
    const headers = { ...(token && { authorization: `Bearer ${token}` }), "content-type": "application/json" };
    const sent = body === undefined ? { headers } : { method: "POST", headers, body: JSON.stringify(body) };
    /** @type {Response} */
    let answer;
    try {
      answer = await (fetcher ?? globalThis.fetch)(serverBase(url).http + path, { ...sent, ...(signal && { signal }) });
    } catch {
      throw new ChatApiError(0, "the server was not reached");
    }
    const found = await answer.json().catch(() => null);
    if (!answer.ok) throw new ChatApiError(answer.status, String(found?.detail ?? found?.title ?? "the call failed"));
    return found;
  }

  /** @param {string} conversationId @param {string} what */
  const chat = (conversationId, what) => `/api/v1/chat/${encodeURIComponent(conversationId)}/${what}`;

  return {
    /**
     * With the `id` of a message that was sent already nothing is sent twice.
     * @param {string} conversationId @param {OutgoingMessage} message @param {AbortSignal} [signal]
     * @returns {Promise<{status: "sent", message_id: string}>}
     */
    sendMessage: (conversationId, message, signal) => call(chat(conversationId, "send"), { message_type: "text", ...message }, signal),
    /** @param {string} conversationId @param {boolean} isTyping @param {AbortSignal} [signal] @returns {Promise<{status: "ok"}>} */
    sendTyping: (conversationId, isTyping, signal) => call(chat(conversationId, "typing"), { is_typing: isTyping }, signal),
    /** @param {string} conversationId @param {readonly string[]} messageIds @param {AbortSignal} [signal] @returns {Promise<{status: "ok"}>} */
    markRead: (conversationId, messageIds, signal) => call(chat(conversationId, "read"), { message_ids: messageIds }, signal),
    /**
     * What is kept, the newest first, a hundred at a time. The older contract had no such call: it is dualcast's own.
     * @param {string} conversationId @param {number} [before] `next` of the page before; 0: none @param {AbortSignal} [signal]
     * @returns {Promise<{messages: Record<string, any>[], next: number}>}
     */
    history: (conversationId, before = 0, signal) =>
      call(`/v1/conversations/${encodeURIComponent(conversationId)}/messages?limit=100&before=${before}`, undefined, signal),
  };
}
