import { WebSocketClient } from "./index.js";
import { backoff } from "./reconnect.js";

/**
 * The contract `conversations` (legacy-wire.md section 6): chat, presence and notices, for a device of a user.
 * It comes back fifteen times, later each time.
 */
export class ConversationsClient extends WebSocketClient {
  /** Names this connection to the server, and to `exclude_connection_id` when a message is sent. */
  connectionId;

  /**
   * @param {{base: () => string, token: () => string, connectionId: string, device: import("../device.js").DeviceInfo,
   *   config: import("./types.js").DeviceConfig, maxAttempts?: number}
   *   & Partial<Omit<import("./index.js").ClientOptions, "config">>} options
   */
  constructor({ base, token, connectionId, device, config, maxAttempts, ...options }) {
    super({
      url: () => {
        const { deviceType, deviceId } = device;
        const query = new URLSearchParams({ token: token(), connectionId, deviceType, deviceId });
        return `${base()}/api/v1/ws?${query}`;
      },
      config,
      policy: backoff(config.reconnectInterval, config.maxReconnectDelay, maxAttempts),
      heartbeat: () => ({ type: "heartbeat", timestamp: Date.now() }),
      ...options,
    });
    this.connectionId = connectionId;
    // One that is taken is replaced by the server.
    this.handlers.on("connected", ({ data }) => (this.connectionId = String(data?.connection_id ?? connectionId)));
  }
}
