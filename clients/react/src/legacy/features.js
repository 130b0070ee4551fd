/**
 * What a feature may use while a page that has it is shown.
 * @typedef {object} FeatureScope
 * @property {import("./client/handlers.js").HandlerRegistry} handlers
 * @property {(message: unknown) => boolean} sendMessage
 * @property {import("./page_config.js").PageConfig} config
 */
/** @typedef {(scope: FeatureScope) => void | (() => void)} Feature what it returns is called when the page is left */

/** @type {Map<string, Feature>} */
const known = new Map();

/** Says what a feature does on pages that list it, and on no others. @param {string} name @param {Feature} setup */
export function defineFeature(name, setup) {
  known.set(name, setup);
  return () => void (known.get(name) === setup && known.delete(name));
}

/** Sets up the features of a page. @param {FeatureScope} scope @returns {() => void} ends them */
export function startFeatures(scope) {
  const ends = scope.config.features.map((name) => safely(() => known.get(name)?.(scope)));
  return () => ends.forEach((end) => safely(() => end?.()));
}

/**
 * What a feature does wrong is reported as uncaught, and keeps neither the page's socket open nor other features from
 * their end.
 * @template T @param {() => T} run @returns {T | void}
 */
function safely(run) {
  try {
    return run();
  } catch (error) {
    queueMicrotask(() => {
      throw error;
    });
  }
}
