// The five older contracts: where their sockets and streams are, what a client may say, how it shows it is alive.
// `to` has `user` and `field(name)`: what the page's fields hold.

const json = (value) => JSON.stringify(value);
const part = encodeURIComponent;
const isPing = (text) => /^\s*\{\s*"type"\s*:\s*"ping"/.test(text);
const PING = { text: () => json({ type: "ping" }), is: isPing, answers: (frame) => frame?.type === "pong" };

export const CONTRACTS = [
  {
    id: "notifications",
    about: "Notifications and task progress. Its sockets only listen: what a client sends is ignored.",
    fields: { task: "task-1", batch: "batch-1" },
    sockets: [
      { id: "notifications", label: "/api/ws/notifications", path: () => "/api/ws/notifications" },
      { id: "task", label: "/api/ws/tasks/{task}", path: (to) => `/api/ws/tasks/${part(to.field("task"))}`, one: true },
      {
        id: "flat",
        label: "/api/analysis/ws/task/{task}",
        path: (to) => `/api/analysis/ws/task/${part(to.field("task"))}`,
        one: true,
      },
    ],
    ping: null,
    examples: [{ label: "anything (ignored)", text: () => json({ type: "ping" }) }],
  },
  {
    id: "rooms",
    about: "Notifications, device sync, system messages, rooms. The user in the path must be the token's.",
    fields: { room: "news" },
    sockets: [{ id: "rooms", label: "/api/v1/ws/{user}", path: (to) => `/api/v1/ws/${part(to.user)}` }],
    ping: PING,
    examples: [
      { label: "subscribe", text: (to) => json({ type: "subscribe", room: to.field("room") }) },
      { label: "unsubscribe", text: (to) => json({ type: "unsubscribe", room: to.field("room") }) },
      { label: "get_stats", text: () => json({ type: "get_stats" }) },
      { label: "ping", text: () => json({ type: "ping" }) },
      { label: "unknown type", text: () => json({ type: "x" }) },
      { label: "no JSON", text: () => "hello" },
    ],
  },
  {
    id: "topics",
    about: "Topic subscriptions: imports, wallets, system status. Without a token: anonymous, public topics only.",
    fields: { topic: "wallet_updates", import: "t1" },
    sockets: [
      { id: "topics", label: "/api/ws", path: () => "/api/ws" },
      { id: "anonymous", label: "without a token: /api/ws", path: () => "/api/ws", anonymous: true },
    ],
    ping: PING,
    examples: [
      { label: "subscribe", text: (to) => json({ type: "subscribe", topic: to.field("topic") }) },
      { label: "subscribe to the import", text: (to) => json({ type: "subscribe", topic: `import:${to.field("import")}` }) },
      { label: "unsubscribe", text: (to) => json({ type: "unsubscribe", topic: to.field("topic") }) },
      { label: "get_stats", text: () => json({ type: "get_stats" }) },
      { label: "ping", text: () => json({ type: "ping" }) },
      { label: "unknown type", text: () => json({ type: "x" }) },
    ],
  },
  {
    id: "conversations",
    about: "Chat between participants, typing, read receipts, presence. Messages are sent over HTTP.",
    fields: { conversation: "conv_1" },
    sockets: [
      { id: "desktop", label: "as desktop: /api/v1/ws", path: () => "/api/v1/ws", query: { deviceType: "desktop" } },
      { id: "mobile", label: "as mobile: /api/v1/ws", path: () => "/api/v1/ws", query: { deviceType: "mobile" } },
    ],
    ping: {
      text: () => json({ type: "heartbeat", timestamp: Date.now() }),
      is: (text) => /^\s*\{\s*"type"\s*:\s*"heartbeat"/.test(text),
      answers: (frame) => frame?.type === "heartbeat",
    },
    examples: [
      {
        label: "typing",
        text: (to) => json({ action: "typing", conversation_id: to.field("conversation"), data: { is_typing: true } }),
      },
      {
        label: "read",
        text: (to) => json({ action: "read", conversation_id: to.field("conversation"), data: { message_ids: ["m1"] } }),
      },
      { label: "heartbeat", text: () => json({ type: "heartbeat", timestamp: Date.now() }) },
      { label: "ping as text", text: () => "ping" },
      { label: "ping as JSON", text: () => json({ type: "ping" }) },
    ],
  },
  {
    id: "progress",
    about: "Progress of batch jobs, imports and uploads, per client id: the user, or the user, a colon and a suffix.",
    fields: { suffix: "" },
    sockets: [
      {
        id: "progress",
        label: "/ws/{client_id}",
        path: (to) => `/ws/${part(to.user + (to.field("suffix") ? `:${to.field("suffix")}` : ""))}`,
      },
    ],
    ping: { ...PING, text: () => json({ type: "ping", timestamp: new Date().toISOString() }) },
    examples: [
      { label: "subscribe", text: () => json({ type: "subscribe", event_type: "batch_reports" }) },
      { label: "unsubscribe", text: () => json({ type: "unsubscribe", event_type: "batch_reports" }) },
      { label: "any other type (echoed)", text: () => json({ type: "custom", text: "hi" }) },
      { label: "ping", text: () => json({ type: "ping" }) },
      { label: "no JSON", text: () => "hello" },
    ],
  },
];

/** Streams. `one`: about one task or batch; `ticket`: of the own protocol, which takes no token in an address of this page. */
export const STREAMS = [
  { id: "notifications", label: "/api/notifications/stream", path: () => "/api/notifications/stream" },
  { id: "task", label: "/api/stream/tasks/{task}", path: (to) => `/api/stream/tasks/${part(to.field("task"))}`, one: true },
  { id: "batch", label: "/api/stream/batches/{batch}", path: (to) => `/api/stream/batches/${part(to.field("batch"))}`, one: true },
  { id: "own", label: "/v1/stream (own protocol)", path: () => "/v1/stream", ticket: true },
];
