const SCHEMES = new Set(["http:", "https:"]);

/**
 * A notification's link as it may be given to a browser: absolute or relative http(s), and nothing that runs script.
 * @param {unknown} link @param {string} [base] of relative ones; the page if missing
 * @returns {string | null} null: it is none
 */
export function safeLink(link, base = globalThis.document?.baseURI ?? "https://localhost/") {
  if (typeof link !== "string" || !link.trim()) return null;
  try {
    return SCHEMES.has(new URL(link, base).protocol) ? link : null;
  } catch {
    return null;
  }
}
