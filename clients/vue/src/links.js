/**
 * A link of a notification as something that may be followed: an address of the web, or of the own site. Anything
 * else (`javascript:`, `data:`) is text somebody sent.
 * @param {unknown} link @returns {string | null}
 */
export function safeLink(link) {
  if (typeof link !== "string" || !link.trim()) return null;
  try {
    return /^https?:$/.test(new URL(link, "https://site.invalid/").protocol) ? link : null;
  } catch {
    return null;
  }
}
