// Types of @dualcast/client as its declarations give them.

/** @typedef {NonNullable<ConstructorParameters<typeof import("@dualcast/client").DualcastClient>[0]>} Options */

export {};
