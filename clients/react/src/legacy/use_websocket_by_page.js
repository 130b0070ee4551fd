import { useMemo } from "react";
import { usePageSocket } from "./page_context.js";

/**
 * The socket of the page that is shown. Which one, and whether at all, its entry in `PAGE_WEBSOCKET_CONFIG` says: page
 * load → configuration → authentication → connection. All components of a page share it; leaving the page ends it and
 * forgets its messages.
 *
 * Each message is rendered for itself: an effect on `lastMessage` sees them all.
 */
export function useWebSocketByPage() {
  const { socket, snapshot } = usePageSocket();
  return useMemo(() => {
    const { isConnected, connectionStatus, lastMessage, reason, config } = snapshot;
    const { sendMessage, connect, disconnect, onMessage } = socket;
    const hasFeature = (/** @type {string} */ name) => config.features.includes(name);
    return { isConnected, connectionStatus, lastMessage, sendMessage, config, reason, connect, disconnect, onMessage, hasFeature };
  }, [socket, snapshot]);
}
