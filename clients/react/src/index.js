"use client"; // for frameworks that render on a server first: hooks and components run in a page, too

export { AppHeader } from "./app_header.js";
export { useChannel, useConnectionStatus, useDualcast, useNotifications, usePresence, useUnreadCount } from "./hooks.js";
export { EN, ZH } from "./labels.js";
export { safeLink } from "./links.js";
export { NotificationBell } from "./notification_bell.js";
export { DualcastProvider } from "./provider.js";
export { WebSocketStatus } from "./websocket_status.js";
