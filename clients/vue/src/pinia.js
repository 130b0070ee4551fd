export { configureWebSocketStore } from "./pinia/config.js";
export { useNotificationStore } from "./pinia/notification_store.js";
export { useWebSocketStore } from "./pinia/websocket_store.js";
export { WebSocketRoot } from "./pinia/root.js";
