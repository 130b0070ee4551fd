// Elements out of data. Text is always text: nothing here, or anywhere on this page, is parsed as markup.

/**
 * An element. Attributes: `class`, `on…` (a listener), `true` (present), `false` and null (absent).
 * @param {string} name @param {Record<string, any> | null} [attributes]
 * @param {...(Node | string | number | null | false | undefined | any[])} children arrays are laid flat
 */
export function h(name, attributes, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(attributes ?? {})) {
    if (key.startsWith("on")) element.addEventListener(key.slice(2), value);
    else if (value === true) element.setAttribute(key, "");
    else if (value !== false && value !== null && value !== undefined) element.setAttribute(key, String(value));
  }
  put(element, children);
  return element;
}

/** Adds children. @param {Element} element @param {any[]} children */
export function put(element, children) {
  for (const child of children.flat(Infinity)) {
    if (child !== null && child !== undefined && child !== false) element.append(child instanceof Node ? child : String(child));
  }
}

/** Replaces what is in `element`. @param {Element} element @param {...any} children */
export function fill(element, ...children) {
  element.replaceChildren();
  put(element, children);
}

/** A term and what it is; null leaves it out. @param {[string, any][]} pairs */
export const facts = (pairs) =>
  h("dl", { class: "facts" }, pairs.filter(([, value]) => value !== null).map(([term, value]) => h("div", null, h("dt", null, term), h("dd", null, value))));

/**
 * A table that may be scrolled sideways by itself, with the keyboard as well.
 * @param {string} caption @param {string[]} heads @param {any[][]} rows @param {string} none said where there are no rows
 */
export function table(caption, heads, rows, none) {
  if (!rows.length) return h("p", { class: "none" }, none);
  return h(
    "div",
    { class: "scroll", role: "region", tabindex: 0, "aria-label": caption },
    h(
      "table",
      null,
      h("thead", null, h("tr", null, heads.map((head) => h("th", { scope: "col" }, head)))),
      h("tbody", null, rows.map((row) => h("tr", null, row.map((cell) => h("td", null, cell))))),
    ),
  );
}

/** Tells a screen reader. @param {string} text */
export function say(text) {
  const region = document.getElementById("said");
  if (region) region.textContent = text;
}
