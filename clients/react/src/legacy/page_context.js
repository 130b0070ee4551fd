import { createContext, useContext, useEffect, useSyncExternalStore } from "react";
import { PageSocket } from "./page_socket.js";

/** Pages share one socket; give another with `<PageSocketContext value={new PageSocket({…})}>`. */
export const PageSocketContext = createContext(new PageSocket());

/** The socket of the page that is shown, kept for as long as the component is. */
export function usePageSocket() {
  const socket = useContext(PageSocketContext);
  useEffect(() => socket.use(), [socket]);
  const snapshot = useSyncExternalStore(socket.watch, socket.getSnapshot, socket.getServerSnapshot);
  return { socket, snapshot };
}
