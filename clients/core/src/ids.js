/** 128 random bits as hex digits (`randomUUID` is missing on pages without TLS). */
export function randomId() {
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");
}
