/** @typedef {import("./options.js").Options} Options */
/** @typedef {import("./api.js").Status} Status */
/** @typedef {import("./api.js").Publication} Publication */
export { DualcastClient } from "./client.js";
export { CLOSE, action } from "./codes.js";
export { DualcastError, UnauthorizedError } from "./errors.js";
