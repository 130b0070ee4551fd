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
  /** @type {[EventTarget, string, (event: any) => void][]} */
  const listeners = [
    [globalThis, "online", () => tell("online")],
    [globalThis, "offline", () => tell("offline")],
    [page, "visibilitychange", () => (page.visibilityState === "visible" ? tell("visible") : leaving())],
    [page, "freeze", () => tell("freeze")],
    [page, "resume", () => tell("resume")],
    [
      globalThis,
      "pagehide",
      (event) => {
        leaving();
        if (event.persisted) tell("freeze");
      },
    ],
    [globalThis, "pageshow", (event) => event.persisted && tell("resume")],
  ];
  for (const [target, name, listener] of listeners) target.addEventListener(name, listener);
  return () => {
    for (const [target, name, listener] of listeners) target.removeEventListener(name, listener);
  };
}
