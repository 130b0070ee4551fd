const PASSING = new Set("disconnected timeout outbox-full unreachable bus-unavailable rate-limited internal".split(" "));

/** Whether it was the way, or the moment, and not what was asked for: then it is asked again. @param {any} error */
export const isPassing = (error) => error?.retryable === true || PASSING.has(error?.code);
