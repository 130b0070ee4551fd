export { DualcastClient } from "./client.js";
export { CLOSE, action } from "./codes.js";
export { DualcastError, UnauthorizedError } from "./errors.js";
