/** What the server refused, or this client could not do. Programs compare `code`. */
export class DualcastError extends Error {
  /**
   * @param {string} code @param {string} [reason] @param {number} [status] of an HTTP answer
   * @param {boolean} [retryable] @param {string[]} [channels] which of those asked for it is about
   */
  constructor(code, reason = "", status = 0, retryable = false, channels = undefined) {
    super(reason ? `${code}: ${reason}` : code);
    this.name = "DualcastError";
    this.code = code;
    this.reason = reason;
    this.status = status;
    this.retryable = retryable;
    this.channels = channels;
  }
}

/** Thrown by `getToken` when there will be none: the user is not signed in. The client stops. */
export class UnauthorizedError extends DualcastError {
  constructor(reason = "") {
    super("unauthorized", reason, 401);
  }
}
