import { MAX_MESSAGES, MAX_READERS, MAX_TYPING, TYPING_MS } from "./types.js";

/** @typedef {import("./types.js").ChatState} ChatState */
/** @typedef {import("./types.js").ChatMessage} ChatMessage */

/** @param {string} conversationId @param {number} [session] @returns {ChatState} */
export const initialChatState = (conversationId, session = 0) => ({ conversationId, session, messages: [], typing: {} });

/** Whether it is that of another conversation or user. @param {ChatState} state @param {string} conversationId @param {number} session */
export const isOther = (state, conversationId, session) => state.conversationId !== conversationId || state.session !== session;

/** One conversation as it is shown. Pure. @param {ChatState} state @param {import("./types.js").ChatAction} action @returns {ChatState} */
export function chatReducer(state, action) {
  switch (action.type) {
    case "open": {
      const { conversationId, session } = action;
      return isOther(state, conversationId, session) ? initialChatState(conversationId, session) : state;
    }
    case "frame":
      return frame(state, action.message, action.now);
    case "sending": {
      const { id, content, message_type = "text" } = action.message;
      const again = edit(state, [id], (one) => ({ ...one, status: "sending" }));
      if (again !== state) return again;
      const timestamp = new Date(action.now).toISOString();
      const { conversationId: conversation_id } = state;
      return add(state, { id, conversation_id, content, message_type, sender_id: "", timestamp, status: "sending", read_by: [] });
    }
    case "sent":
    case "failed":
      return edit(state, [action.id], (one) => (one.status === action.type ? one : { ...one, status: action.type }));
    case "history":
      return history(state, action.messages);
    case "tick": {
      const typing = Object.entries(state.typing).filter(([, until]) => until > action.now);
      return typing.length === Object.keys(state.typing).length ? state : { ...state, typing: Object.fromEntries(typing) };
    }
  }
}

/** @param {ChatState} state @param {import("../client/types.js").Message} message @param {number} now @returns {ChatState} */
function frame(state, { event_type, data, conversation_id }, now) {
  const of = conversation_id ?? data?.conversation_id;
  if (of !== state.conversationId || !data) return state;
  switch (event_type) {
    case "new_message": {
      const message = stored(state, data);
      return typing(add(state, message), message.sender_id, 0);
    }
    case "typing_update":
      return typing(state, String(data.user_id), data.is_typing ? now + TYPING_MS : 0);
    case "read_status": {
      if (!Array.isArray(data.message_ids)) return state;
      const reader = String(data.user_id);
      return edit(state, data.message_ids, (one) =>
        one.read_by.includes(reader) || one.read_by.length >= MAX_READERS ? one : { ...one, read_by: [...one.read_by, reader] },
      );
    }
    default:
      return state;
  }
}

/** @param {ChatState} state @param {Record<string, any>} data as the server keeps it @returns {ChatMessage} */
const stored = ({ conversationId }, { id, content, type = "text", message_type = type, sender_id, time = "", timestamp = time }) => ({
  id: String(id),
  conversation_id: conversationId,
  content,
  message_type,
  sender_id: String(sender_id ?? ""),
  timestamp,
  read_by: [],
});

/** What was missed, in its place; the server's times count. @param {ChatState} state @param {readonly Record<string, any>[]} found the newest first @returns {ChatState} */
function history(state, found) {
  const all = new Map(state.messages.map((one) => [one.id, one]));
  for (const one of found.toReversed()) {
    const message = stored(state, one);
    const known = all.get(message.id);
    all.set(message.id, known ? { ...known, timestamp: message.timestamp, ...(known.status && { status: "sent" }) } : message);
  }
  const messages = [...all.values()].sort((one, other) => Date.parse(one.timestamp) - Date.parse(other.timestamp));
  return { ...state, messages: messages.slice(-MAX_MESSAGES) };
}

/** @param {ChatState} state @param {ChatMessage} message @returns {ChatState} */
function add(state, message) {
  if (state.messages.some(({ id }) => id === message.id)) return state; // the same again, after a reconnect or a retry
  return { ...state, messages: [...state.messages, message].slice(-MAX_MESSAGES) };
}

/** @param {ChatState} state @param {readonly string[]} ids @param {(one: ChatMessage) => ChatMessage} change @returns {ChatState} */
function edit(state, ids, change) {
  const wanted = new Set(ids);
  const messages = state.messages.map((one) => (wanted.has(one.id) ? change(one) : one));
  return messages.every((one, number) => one === state.messages[number]) ? state : { ...state, messages };
}

/** @param {ChatState} state @param {string} user @param {number} until 0: not @returns {ChatState} */
function typing(state, user, until) {
  const { [user]: before, ...others } = state.typing;
  if (!until) return before === undefined ? state : { ...state, typing: others };
  if (before === undefined && Object.keys(others).length >= MAX_TYPING) return state;
  return { ...state, typing: { ...others, [user]: until } };
}
