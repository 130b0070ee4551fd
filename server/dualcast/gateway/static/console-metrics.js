// The Prometheus text format, as much of it as is shown here: name{label="value"} number.

/** @typedef {{name: string, labels: Map<string, string>, value: number}} Sample */

const SAMPLE = /^([a-zA-Z_:][\w:]*)(?:\{(.*)\})? (\S+)/;
const LABEL = /(\w+)="((?:[^"\\]|\\.)*)"/g;

/** @param {string} text @returns {Sample[]} lines that are none are left out */
export function parse(text) {
  const found = [];
  for (const line of text.split("\n")) {
    const sample = line.startsWith("#") ? null : SAMPLE.exec(line);
    if (!sample || !Number.isFinite(Number(sample[3]))) continue;
    const labels = new Map([...(sample[2] ?? "").matchAll(LABEL)].map(([, name, value]) => [name, value]));
    found.push({ name: sample[1], labels, value: Number(sample[3]) });
  }
  return found;
}

/** All samples of a name added up. @param {Sample[]} samples @param {string} name */
export const total = (samples, name) => samples.filter((one) => one.name === name).reduce((sum, one) => sum + one.value, 0);

/** The sums of a name by one label. @param {Sample[]} samples @param {string} name @param {string} label */
export function byLabel(samples, name, label) {
  /** @type {Map<string, number>} */
  const found = new Map();
  for (const one of samples) {
    if (one.name === name) found.set(one.labels.get(label) ?? "", (found.get(one.labels.get(label) ?? "") ?? 0) + one.value);
  }
  return found;
}
