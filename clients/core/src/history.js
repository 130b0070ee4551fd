import { DualcastError } from "./errors.js";

const MOST_PAGES = 200;

/**
 * Reads what a `gap` says was missed, page by page. Rejects with DualcastError, `too-long` where it has no end.
 * @param {import("./rest.js").Rest} rest @param {{channel: string, history_url: string}} gap
 * @param {(publication: any) => void} deliver @returns {Promise<number>} how many there were
 */
export async function backfill(rest, gap, deliver) {
  const [path, asked] = gap.history_url.split("?");
  const query = new URLSearchParams(asked);
  let count = 0;
  for (let page = 0; page < MOST_PAGES; page += 1) {
    const found = await rest.call("GET", `${path}?${query}`);
    for (const { cursor: _, ...publication } of found.publications) {
      count += 1;
      deliver({ type: "publication", recovered: true, channel: found.channel, ...publication });
    }
    if (!found.more) return count;
    query.set("after", found.next);
  }
  throw new DualcastError("too-long");
}
