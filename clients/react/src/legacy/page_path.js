/**
 * What is needed of a window.
 * @typedef {object} Scope
 * @property {{pathname: string}} [location]
 * @property {{pushState: Function, replaceState: Function}} [history]
 * @property {EventTarget} [navigation] of the Navigation API, where there is one
 * @property {(type: any, listener: () => void) => void} [addEventListener]
 * @property {(type: any, listener: () => void) => void} [removeEventListener]
 */

const METHODS = /** @type {const} */ (["pushState", "replaceState"]);

/** The path of the page; "" where there is none. @param {Scope} [scope] */
export const currentPath = (scope = globalThis) => scope.location?.pathname ?? "";

/**
 * Tells when the page may have another path: a router that uses the History API fires no event of its own. Told in a
 * microtask, since routers navigate while React renders.
 * @param {() => void} listener @param {Scope} [scope] @returns {() => void} stops it
 */
export function watchPath(listener, scope = globalThis) {
  let watching = true;
  const tell = () => queueMicrotask(() => watching && listener());
  scope.addEventListener?.("popstate", tell);
  const leave = scope.navigation ? listen(scope.navigation, tell) : scope.history ? wrap(scope.history, tell) : () => {};
  return () => {
    watching = false;
    scope.removeEventListener?.("popstate", tell);
    leave();
  };
}

/** @param {EventTarget} navigation @param {() => void} tell */
function listen(navigation, tell) {
  navigation.addEventListener("currententrychange", tell);
  return () => navigation.removeEventListener("currententrychange", tell);
}

/** @param {NonNullable<Scope["history"]>} history @param {() => void} tell */
function wrap(history, tell) {
  const undo = METHODS.map((name) => {
    const own = Object.hasOwn(history, name);
    const before = history[name];
    /** @param {any[]} args */
    const wrapped = function (...args) {
      const result = before.apply(history, args);
      tell();
      return result;
    };
    history[name] = wrapped;
    return () => {
      if (history[name] !== wrapped) return; // somebody wrapped it again, and calls ours, which tells nobody
      if (own) history[name] = before;
      else delete (/** @type {any} */ (history)[name]);
    };
  });
  return () => undo.forEach((one) => one());
}
