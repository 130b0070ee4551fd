// What the device is, and how a client on it is configured.

import { randomId } from "@dualcast/client/src/ids.js";
import { gentle, pageStore } from "@dualcast/client/src/storage.js";

/**
 * @typedef {object} DeviceInfo
 * @property {"mobile" | "tablet" | "desktop"} deviceType
 * @property {string} deviceId the same in every tab and after a reload
 */
/** @typedef {import("./client/types.js").DeviceConfig} DeviceConfig */

const CONFIG = Object.freeze({
  connectionTimeout: 20_000,
  heartbeatInterval: 45_000,
  reconnectInterval: 2_000,
  maxReconnectDelay: 30_000,
});
const KEY = "device";

/**
 * One configuration for all: a phone that is asleep is no reason to beat more often.
 * @param {Partial<DeviceInfo>} [_device] @returns {Readonly<DeviceConfig>} ms
 */
export const getWebSocketDeviceConfig = (_device) => CONFIG;

/**
 * The type of a device, by what its browser says of itself. An iPad calls itself a Mac with fingers.
 * @param {{userAgent?: string, maxTouchPoints?: number}} navigator @returns {DeviceInfo["deviceType"]}
 */
export function deviceType({ userAgent = "", maxTouchPoints = 0 }) {
  if (/ipad|tablet|playbook|silk/i.test(userAgent) || (/android/i.test(userAgent) && !/mobile/i.test(userAgent))) return "tablet";
  if (/macintosh/i.test(userAgent) && maxTouchPoints > 1) return "tablet";
  return /mobi|iphone|ipod|android/i.test(userAgent) ? "mobile" : "desktop";
}

/**
 * This device.
 * @param {{userAgent?: string, maxTouchPoints?: number}} [navigator]
 * @param {import("@dualcast/client/src/storage.js").Store | null} [store] remembers its id
 * @returns {DeviceInfo}
 */
export function getDeviceInfo(navigator = globalThis.navigator ?? {}, store = pageStore("localStorage")) {
  const kept = gentle(store);
  const known = kept.get(KEY);
  const deviceId = typeof known === "string" && known ? known : randomId();
  if (deviceId !== known) kept.set(KEY, deviceId);
  return { deviceType: deviceType(navigator), deviceId };
}
