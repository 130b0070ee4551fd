/** The largest frame a server takes by default; a larger one would cost the connection (close code 1009). */
export const MAX_FRAME_BYTES = 65_536;

/**
 * A message as the text of a frame; text stays as it is (`ping`).
 * @param {unknown} message @returns {string | null} null: it has no JSON, or is too large
 */
export function serialize(message) {
  let text;
  try {
    text = typeof message === "string" ? message : JSON.stringify(message);
  } catch {
    return null; // a cycle, a BigInt
  }
  if (typeof text !== "string" || new TextEncoder().encode(text).length > MAX_FRAME_BYTES) return null;
  return text;
}

/**
 * The object a frame holds; the bare text `pong` of `conversations` counts as one.
 * @param {unknown} data of a MessageEvent @returns {Record<string, any> | null} null: nothing of these contracts
 */
export function deserialize(data) {
  if (typeof data !== "string") return null;
  if (data === "pong" || data === "ping") return { type: data };
  try {
    const found = JSON.parse(data);
    return typeof found === "object" && !Array.isArray(found) ? found : null;
  } catch {
    return null;
  }
}
