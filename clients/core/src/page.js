/**
 * Tells what happens to the page: the network, being shown, being frozen (also into the back/forward cache, which
 * no page enters with an open socket).
 * @param {(type: "online" | "offline" | "visible" | "freeze" | "resume") => void} tell
 * @param {() => void} leaving the last moment to store something
 * @returns {() => void} stops it
 */
export function watchPage(tell, leaving) {
  const page = globalThis.document;
  if (!page || !globalThis.addEventListener) return () => {};
  const over = new AbortController();
  /** @param {EventTarget} target @param {string} name @param {(event: any) => void} listener */
  const on = (target, name, listener) => target.addEventListener(name, listener, over);
  for (const type of /** @type {const} */ (["online", "offline"])) on(globalThis, type, () => tell(type));
  for (const type of /** @type {const} */ (["freeze", "resume"])) on(page, type, () => tell(type));
  on(page, "visibilitychange", () => (page.visibilityState === "visible" ? tell("visible") : leaving()));
  on(globalThis, "pagehide", (event) => {
    leaving();
    if (event.persisted) tell("freeze");
  });
  on(globalThis, "pageshow", (event) => event.persisted && tell("resume"));
  return () => over.abort();
}
