/** Web Locks of one browser: by name, first come first served. `refusals` of those asked for next fail. */
export class Locks {
  refusals = 0;
  #queues = new Map();

  request = (name, { signal }, held) => {
    const { promise, resolve, reject } = Promise.withResolvers?.() ?? resolvers();
    const queue = this.#queues.get(name) ?? [];
    this.#queues.set(name, queue);
    const next = () => {
      queue.shift();
      queue[0]?.();
    };
    const turn = async () => {
      await null;
      if (this.refusals > 0) {
        this.refusals -= 1;
        next();
        return reject(new Error("no longer runnable"));
      }
      await held();
      next();
      resolve();
    };
    signal.addEventListener("abort", () => {
      const at = queue.indexOf(turn);
      if (at > 0) queue.splice(at, 1);
      reject(new Error("aborted"));
    });
    if (queue.push(turn) === 1) void turn();
    return promise;
  };
}
const resolvers = () => {
  const found = {};
  found.promise = new Promise((resolve, reject) => Object.assign(found, { resolve, reject }));
  return found;
};
