import { serverBase } from "./env.js";

const NAMES = /** @type {const} */ (["connectionTimeout", "heartbeatInterval", "reconnectInterval", "maxReconnectDelay"]);
const isCount = (/** @type {unknown} */ value) => typeof value === "number" && value > 0 && Number.isFinite(value);

/**
 * What the server wants its clients to be configured with (`GET /api/ws/config`, legacy-wire.md section 6.7), as options
 * of a PageSocket. What it does not say, or says wrongly, is left to the device's configuration.
 * @param {string} [url] of the server @param {typeof fetch} [fetcher]
 * @returns {Promise<{config: Partial<import("./client/types.js").DeviceConfig>, maxAttempts?: number}>}
 */
export async function loadServerConfig(url, fetcher = globalThis.fetch) {
  const found = await fetcher(`${serverBase(url).http}/api/ws/config`)
    .then((answer) => (answer.ok ? answer.json() : null))
    .catch(() => null);
  const config = Object.fromEntries(NAMES.filter((name) => isCount(found?.[name])).map((name) => [name, found[name]]));
  const maxAttempts = found?.maxReconnectAttempts;
  return { config, ...(isCount(maxAttempts) && { maxAttempts }) };
}
