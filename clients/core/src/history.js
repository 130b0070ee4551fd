const MOST_PAGES = 200;

/**
 * Reads what a `gap` says was missed, page by page. Rejects with DualcastError.
 * @param {import("./rest.js").Rest} rest @param {{channel: string, history_url: string}} gap
 * @param {(publication: any) => void} deliver @returns {Promise<number | null>} how many there were; null: there is no end of them
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
  return null;
}
