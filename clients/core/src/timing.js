// Every wait of the client, in ms; options override them by name.

export const TIMING = Object.freeze({
  /** Token and ticket have to be there. */
  prepare: 20_000,
  /** The handshake has to be answered. */
  open: 10_000,
  /** An open connection has to say `welcome`: one that does not is swallowed on the way. */
  greet: 6_000,
  /** The answer to a ping. */
  answer: 10_000,
  /** The same when there is a reason for doubt: the page came back, the network changed. */
  doubt: 4_000,
  /** A connection that lasted so long has worked: failures before it are forgotten, the other one may go. */
  settle: 5_000,
  /** Silence beyond the server's heartbeat that is still none. */
  slack: 10_000,
  /** How a stage change is spread over a tenant's clients. */
  spread: 5_000,
  /** Between attempts to get back to WebSocket: first and longest. */
  probe: 30_000,
  probeCap: 600_000,
  /** First and longest delay of reconnects. */
  first: 1_000,
  cap: 30_000,
});
/** @typedef {{-readonly [K in keyof typeof TIMING]: number}} Timing */
