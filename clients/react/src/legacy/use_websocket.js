import { useEffect, useInsertionEffect, useMemo, useRef, useSyncExternalStore } from "react";
import { RoomsClient } from "./client/rooms.js";
import { IDLE } from "./client/types.js";
import { serverBase } from "./env.js";

/** @typedef {import("./client/types.js").Message} Message */
/**
 * @typedef {object} Callbacks
 * @property {(message: Message) => void} [onMessage] every message, also `pong` and `stats`
 * @property {() => void} [onConnect]
 * @property {(closed: import("./client/types.js").Closed) => void} [onDisconnect]
 */
/**
 * @typedef {object} HookOptions
 * @property {string} [url] of the server; NEXT_PUBLIC_WS_URL of the build, else the page's origin
 * @property {boolean} [autoConnect] false: only `connect()` connects; default true
 * @property {typeof WebSocket} [WebSocket]
 * @property {import("./client/types.js").Clock} [clock]
 */

const nothing = () => {};
const unwatched = () => nothing;
const idle = () => IDLE;

/**
 * The socket of a user by the contract `rooms`. The callbacks are always those of the last render; only another user, or
 * another server, is a new connection. `subscribe(room)` joins a room for as long as this connection is wanted, and again
 * after a reconnect; it returns a function that leaves it. `sendMessage` says whether the message is sent or will be.
 *
 * @param {string | null | undefined} userId none: no connection
 * @param {string | null | undefined} token one that was renewed is used from the next attempt on; none: no connection
 * @param {Callbacks & HookOptions} [options]
 */
export function useWebSocket(userId, token, options = {}) {
  const { url, autoConnect = true, WebSocket: Socket, clock } = options;
  const latest = useRef(options);
  useInsertionEffect(() => {
    latest.current = options;
  });

  const wanted = !!token;
  const client = useMemo(() => {
    if (!userId || !wanted) return null;
    const given = { ...(Socket && { WebSocket: Socket }), ...(clock && { clock }) };
    // The token follows in an effect: another one is no other client.
    return new RoomsClient({ base: () => serverBase(url).ws, userId, token: "", ...given });
  }, [userId, wanted, url, Socket, clock]);

  useEffect(() => {
    if (token) client?.renew(token);
  }, [client, token]);

  useEffect(() => {
    if (!client) return;
    const offs = [
      client.handlers.onAny((message) => latest.current.onMessage?.(message)),
      client.onConnect(() => latest.current.onConnect?.()),
      client.onDisconnect((closed) => latest.current.onDisconnect?.(closed)),
    ];
    return () => {
      client.disconnect();
      offs.forEach((off) => off());
      client.disconnect(); // again, if a callback has connected
    };
  }, [client]);

  useEffect(() => {
    if (!client || !autoConnect) return;
    // In a later turn: what StrictMode mounts twice connects once.
    const timer = setTimeout(client.connect, 0);
    return () => clearTimeout(timer);
  }, [client, autoConnect]);

  const snapshot = useSyncExternalStore(client?.watch ?? unwatched, client?.getSnapshot ?? idle, idle);
  const calls = useMemo(
    () => ({
      sendMessage: (/** @type {unknown} */ message) => client?.send(message) ?? false,
      subscribe: client?.subscribe ?? unwatched,
      unsubscribe: client?.unsubscribe ?? nothing,
      connect: client?.connect ?? nothing,
      disconnect: client?.disconnect ?? nothing,
    }),
    [client],
  );
  return useMemo(() => ({ ...snapshot, ...calls }), [snapshot, calls]);
}
