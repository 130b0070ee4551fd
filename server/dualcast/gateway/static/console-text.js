// Values in words.

const NONE = "–";
const numbers = new Intl.NumberFormat();

/** @param {number} value */
export const number = (value) => numbers.format(value);

/** @param {number | null} value */
export const percent = (value) => (value === null ? "off" : `${numbers.format(value)} %`);

/** A time of an answer (RFC 3339), in this computer's zone. @param {string | undefined} text */
export function time(text) {
  const at = new Date(text ?? "");
  return Number.isNaN(at.getTime()) ? NONE : at.toLocaleString();
}

/** Unix seconds, in UTC as the schedule is set; 0: not set. @param {number} seconds */
export const second = (seconds) => (seconds ? new Date(seconds * 1_000).toISOString().slice(0, 16) + "Z" : "not set");

/** @param {number} seconds */
export function span(seconds) {
  if (seconds < 120) return `${Math.round(seconds)} s`;
  if (seconds < 7_200) return `${Math.round(seconds / 60)} min`;
  return seconds < 172_800 ? `${Math.round(seconds / 3_600)} h` : `${Math.round(seconds / 86_400)} days`;
}

/** @param {string} text @param {number} most characters */
export const short = (text, most) => (text.length > most ? text.slice(0, most) + "…" : text);

/** Who is meant by a stage. @param {{percent: number, allow?: string[], deny?: string[]}} cohort */
export function cohort({ percent: share, allow = [], deny = [] }) {
  const words = [share === 100 ? "everybody" : `${numbers.format(share)} % of the users`];
  if (allow.length) words.push(`${allow.length} always in`);
  if (deny.length) words.push(`${deny.length} never in`);
  return words.join(", ");
}

/**
 * A record as `name: text`, the names as the REST interface has them.
 * @param {any} record @returns {Map<string, string>}
 */
export function flat(record) {
  const found = new Map();
  /** @param {string} prefix @param {any} value */
  const add = (prefix, value) => {
    if (value && typeof value === "object" && !Array.isArray(value)) {
      for (const [key, inner] of Object.entries(value)) add(prefix ? `${prefix}.${key}` : key, inner);
    } else if (Array.isArray(value)) {
      found.set(prefix, value.map((one) => (typeof one === "string" ? one : `${second(one.at)}=${one.percent}`)).join(", ") || "none");
    } else if (prefix.endsWith("_at") || prefix.endsWith("_until")) found.set(prefix, second(value));
    else found.set(prefix, value === null ? (prefix === "mirror" ? "the server's setting" : "off") : value === "" ? "none" : String(value));
  };
  add("", record);
  return found;
}

/** What is different. @param {any} before @param {any} after @returns {[string, string, string][]} name, from, to */
export function difference(before, after) {
  const [old, now] = [flat(before), flat(after)];
  return [...now].filter(([name, text]) => old.get(name) !== text).map(([name, text]) => [name, old.get(name) ?? NONE, text]);
}
