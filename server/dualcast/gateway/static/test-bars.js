// Progress in a frame of any contract, and bars that show it.

const MAX_BARS = 12;
const STATUS = { completed: "completed", partial: "completed", finished: "completed" };
const FAILED = new Set(["failed", "error", "cancelled"]);

/**
 * What a frame says of progress: `{key, label, percent, status}`, or null.
 * `name`: the event name on a stream, "" on a socket. `status`: `running`, `completed` or `failed`.
 */
export function progressOf(frame, name) {
  if (frame === null || typeof frame !== "object") return null;
  const type = frame.type ?? name;
  if (type === "publication") return progressOf(frame.data, frame.event);
  if (name && frame.event && frame.data && frame.channel) return progressOf(frame.data, frame.event); // own protocol
  const inner = frame.data !== null && typeof frame.data === "object" ? frame.data : {};
  const facts = { ...inner, ...frame };
  const key = facts.task_id ?? facts.batch_id ?? facts.filename ?? facts.import_id ?? (facts.owner && facts.id);
  const share = frame.total > 0 ? Math.round((frame.progress / frame.total) * 1000) / 10 : undefined; // a count of `total`
  const percent = [facts.percentage, share, facts.progress, facts.percent].map(numberOf).find((n) => n !== undefined);
  const known = key ?? (/_progress$/.test(type) ? type : undefined);
  if (known === undefined || percent === undefined) return null;
  const said = facts.status ?? facts.state ?? facts.final_status ?? type;
  const status = STATUS[said] ?? (FAILED.has(said) ? "failed" : "running");
  return { key: String(known), label: `${known} · ${facts.message || said}`, percent, status };
}

function numberOf(value) {
  return typeof value === "number" && Number.isFinite(value) ? Math.min(100, Math.max(0, value)) : undefined;
}

/** Bars by key, newest first. */
export class Bars {
  constructor(root) {
    this.root = root;
    this.bars = new Map();
  }

  show({ key, label, percent, status }) {
    const bar = this.bars.get(key) ?? this.add(key);
    bar.dataset.status = status;
    bar.children[0].textContent = label;
    bar.children[1].textContent = `${percent} %`;
    bar.children[2].value = percent;
    bar.children[2].setAttribute("aria-label", key);
  }

  add(key) {
    const bar = document.createElement("div");
    bar.className = "bar";
    bar.dataset.key = key;
    const meter = document.createElement("progress");
    meter.max = 100;
    bar.append(document.createElement("span"), document.createElement("b"), meter);
    this.root.prepend(bar);
    this.bars.set(key, bar);
    if (this.bars.size > MAX_BARS) {
      const [oldest, element] = this.bars.entries().next().value;
      element.remove();
      this.bars.delete(oldest);
    }
    return bar;
  }

  clear() {
    this.bars.clear();
    this.root.replaceChildren();
  }
}
