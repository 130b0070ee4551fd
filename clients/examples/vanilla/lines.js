/** Lines a page keeps: what a server sends may have no end. */
const MOST = 200;
const LONGEST = 2_000;

/**
 * Puts a line on top of a list, as text: nothing that was received is ever markup.
 * @param {HTMLElement} list @param {string} text @param {"got" | "sent" | "signal"} [kind]
 */
export function line(list, text, kind = "got") {
  const item = document.createElement("li");
  const time = document.createElement("time");
  item.className = kind;
  time.textContent = new Date().toLocaleTimeString();
  item.append(time, text.length > LONGEST ? `${text.slice(0, LONGEST)}…` : text);
  list.prepend(item);
  while (list.childElementCount > MOST) list.lastElementChild?.remove();
}

/** What a frame says, or null: not everything on a socket is JSON. @param {unknown} text @returns {any} */
export function parsed(text) {
  try {
    const value = JSON.parse(String(text));
    return typeof value === "object" ? value : null;
  } catch {
    return null;
  }
}

/** An element that is there. @param {string} id @returns {any} */
export function element(id) {
  const found = document.getElementById(id);
  if (!found) throw new Error(`the page has no #${id}`);
  return found;
}
