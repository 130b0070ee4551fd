"use client"; // for frameworks that render on a server first: hooks and components run in a page, too

export { EN, ZH, safeLink } from "@dualcast/client/stores";
export { AppHeader } from "./app_header.js";
export { useChannel, useConnectionStatus, useDualcast, useNotifications, usePresence, useUnreadCount } from "./hooks.js";
export { NotificationBell } from "./notification_bell.js";
export { DualcastProvider } from "./provider.js";
export { WebSocketStatus } from "./websocket_status.js";
