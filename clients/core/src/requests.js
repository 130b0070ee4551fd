// How connections are asked for: URL, credentials, where to go on.

/**
 * @typedef {object} Asking
 * @property {string} base
 * @property {import("./token.js").Token} token
 * @property {import("./rest.js").Rest} rest
 * @property {import("./options.js").Options} options
 * @property {{headers: boolean, unopened: string}} drivers whether the stream's can send headers; why there is no
 *   WebSocket at all, "" : there may be one
 * @property {string} instance
 * @property {() => Iterable<string>} channels
 * @property {Iterable<string>} events
 * @property {() => string} cursor
 * @property {URLSearchParams} [given] more parameters
 */

/**
 * @param {Asking} asking @param {"ws" | "sse"} link @param {boolean} fresh @param {string} fallbackReason
 * @returns {Promise<import("./transports/port.js").Request>}
 */
export async function request(asking, link, fresh, fallbackReason) {
  const { base, instance, options, drivers } = asking;
  const { auth = "subprotocol", device, deviceId: device_id, app } = options;
  const query = new URLSearchParams(asking.given);
  for (const channel of asking.channels()) query.append("channel", channel);
  for (const [name, value] of Object.entries({ instance, device, device_id, app })) if (value) query.set(name, value);
  const token = await asking.token.get(fresh);
  const isSocket = link === "ws";
  const bearer = isSocket ? auth === "subprotocol" : drivers.headers;
  if (token && !bearer) {
    if (auth === "query") query.set("token", token);
    else {
      const asked = await asking.rest.call("POST", "/v1/tickets", { transport: isSocket ? "websocket" : "sse" });
      query.set("ticket", asked.ticket);
    }
  }
  const cursor = asking.cursor();
  if (cursor) query.set("cursor", cursor);
  const reason = fallbackReason || drivers.unopened;
  if (!isSocket && reason) query.set("fallback_reason", reason.slice(0, 64));
  const shown = bearer && token;
  if (isSocket) {
    const protocols = shown ? ["dualcast", `bearer.${token}`] : undefined;
    return { url: `${base.replace(/^http/, "ws")}/v1/socket?${query}`, protocols };
  }
  /** @type {Record<string, string>} */
  const headers = shown ? { authorization: `Bearer ${token}` } : {};
  return { url: `${base}/v1/stream?${query}`, headers, credentials: options.withCredentials, events: asking.events };
}
