export { createDualcast, useDualcast, DUALCAST } from "./plugin.js";
export { useConnectionStatus } from "./connection.js";
export { useNotifications, useUnreadCount } from "./notifications.js";
export { useChannel, usePresence } from "./channel.js";
export { useDesktopNotifications } from "./desktop.js";
export { NotificationBell } from "./notification_bell.js";
export { WebSocketStatus } from "./websocket_status.js";
export { EN, safeLink, ZH } from "@dualcast/client/stores";
