// Texts that say when they were published, so that a frame with one in it tells how long it took.

const MAX_STAMPS = 50;
const stamps = new Map();

/** A text that no other publication of this page has. */
export function stamp() {
  const text = `published at ${new Date().toISOString().slice(11, 23)} #${Math.random().toString(36).slice(2, 6)}`;
  stamps.set(text, performance.now());
  if (stamps.size > MAX_STAMPS) stamps.delete(stamps.keys().next().value);
  return text;
}

/** Milliseconds since the stamp in `text` was made, or null. `now`: of `performance`. */
export function arrivedAfter(text, now) {
  for (const [found, at] of stamps) if (text.includes(found)) return now - at;
  return null;
}
