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

const STAGES = ["sse", "shadow", "fallback", "websocket"];

/**
 * Which share of the users goes from where to where; [] when nobody does. Users named in the lists are left aside.
 * @param {any} before @param {any} after records @returns {string[]}
 */
export function moves(before, after) {
  const at = (/** @type {any} */ record, /** @type {number} */ place) =>
    STAGES[Math.max(0, STAGES.indexOf(record.stage) - (place < record.cohort.percent ? 0 : 1))];
  const cuts = [...new Set([0, before.cohort.percent, after.cohort.percent, 100])].sort((a, b) => a - b);
  /** @type {Map<string, number>} */
  const shares = new Map();
  for (const [index, low] of cuts.slice(0, -1).entries()) {
    const [was, will] = [at(before, low), at(after, low)];
    const way = was === will ? `stay in ${was}` : `go from ${was} to ${will}`;
    shares.set(way, (shares.get(way) ?? 0) + cuts[index + 1] - low);
  }
  if ([...shares.keys()].every((way) => way.startsWith("stay"))) return [];
  return [...shares].map(([way, share]) => `${numbers.format(share)} % of the users ${way}.`);
}
