/** What `moveFocus` takes. */
export const KEYS = Object.freeze(["ArrowDown", "ArrowUp", "Home", "End"]);

/**
 * Moves the focus between the titles of a list of notifications (`[data-dc-main]`).
 * @param {HTMLElement | null} panel @param {string} key one of `KEYS`; any other moves nothing @returns {boolean} whether it did
 */
export function moveFocus(panel, key) {
  const titles = /** @type {HTMLElement[]} */ ([...(panel?.querySelectorAll("[data-dc-main]") ?? [])]);
  const root = /** @type {Document | ShadowRoot | undefined} */ (panel?.getRootNode());
  const current = root?.activeElement?.closest("li");
  const at = titles.findIndex((title) => current?.contains(title));
  const last = titles.length - 1;
  const next = { ArrowDown: at + 1, ArrowUp: at < 0 ? last : at - 1, Home: 0, End: last }[key] ?? -1;
  if (!titles[next]) return false;
  titles[next].focus();
  return true;
}
