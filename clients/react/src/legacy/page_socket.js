import { CLOCK } from "@dualcast/client/src/engine.js";
import { Emitter } from "@dualcast/client/src/emitter.js";
import { randomId } from "@dualcast/client/src/ids.js";
import { Timers } from "@dualcast/client/src/timers.js";
import { authService } from "./auth_service.js";
import { ConversationsClient } from "./client/conversations.js";
import { IDLE } from "./client/types.js";
import { getDeviceInfo, getWebSocketDeviceConfig } from "./device.js";
import { serverBase } from "./env.js";
import { startFeatures } from "./features.js";
import { NO_SOCKET, PAGE_WEBSOCKET_CONFIG, findPage, isLoginPage, onPagesDefined } from "./page_config.js";
import { currentPath, watchPath } from "./page_path.js";

/** @typedef {import("./page_config.js").PageConfig} PageConfig */
/** @typedef {import("./client/types.js").Reason} Reason */
/**
 * `session` is another number for another page or user; 0: no socket is wanted.
 * @typedef {Readonly<import("./client/types.js").Snapshot & {config: PageConfig, session: number}>} PageSnapshot
 */
/**
 * @typedef {object} PageSocketOptions
 * @property {string} [url] of the server; NEXT_PUBLIC_WS_URL of the build, else the page's origin
 * @property {Record<string, PageConfig>} [pages]
 * @property {import("./auth_service.js").AuthService} [auth]
 * @property {Partial<import("./client/types.js").DeviceConfig>} [config] in place of parts of the device's, as of `loadServerConfig()`
 * @property {number} [maxAttempts]
 * @property {import("./page_path.js").Scope} [scope] the window
 * @property {typeof WebSocket} [WebSocket]
 * @property {import("./client/types.js").Clock} [clock]
 */

/** @type {PageSnapshot} */
const NO_PAGE = Object.freeze({ ...IDLE, config: NO_SOCKET, session: 0 });

/**
 * The socket of the page that is shown: path → configuration → authentication → connection, if all of them say so.
 * One for all components of the page; another page or another user begins anew.
 */
export class PageSocket {
  #options;
  #auth;
  #timers;
  #events = new Emitter();
  #users = 0;
  #unwatch = () => {};
  #key = "";
  #identity = "";
  #token = "";
  #watching = false;
  #sessions = 0;
  /** @type {ConversationsClient | null} */
  #client = null;
  #leave = () => {};
  #snapshot = NO_PAGE;

  /** @param {PageSocketOptions} [options] */
  constructor(options = {}) {
    this.#options = options;
    this.#auth = options.auth ?? authService;
    this.#timers = new Timers(options.clock ?? CLOCK);
  }

  // ── for React's useSyncExternalStore ──

  /** @param {() => void} listener @returns {() => void} */
  watch = (listener) => this.#events.on("change", listener);
  getSnapshot = () => this.#snapshot;
  getServerSnapshot = () => NO_PAGE;

  // ── what components say ──

  /**
   * A component uses it. Begins and ends in a later turn: components that are exchanged, or mounted twice by
   * StrictMode, make no second connection.
   * @returns {() => void} it does so no more
   */
  use = () => {
    this.#users += 1;
    this.#timers.set("users", 0, this.#count);
    return () => {
      this.#users -= 1;
      this.#timers.set("users", 0, this.#count);
    };
  };

  /** Connects, where the page's configuration and authentication allow it. */
  connect = () => {
    this.#evaluate();
    this.#client?.connect();
  };

  /** For as long as the page is shown, or until `connect()`. */
  disconnect = () => {
    this.#client?.disconnect();
  };

  /** @param {unknown} message @returns {boolean} false: it is not going to be sent (see `WebSocketClient.send`) */
  sendMessage = (message) => this.#client?.send(message) ?? false;

  /** Every message of this page and the next ones. @param {(message: import("./client/types.js").Message) => void} listener @returns {() => void} */
  onMessage = (listener) => this.#events.on("message", listener);

  /** For `exclude_connection_id`. */
  get connectionId() {
    return this.#client?.connectionId;
  }

  get auth() {
    return this.#auth;
  }

  get url() {
    return this.#options.url;
  }

  // ── inside ──

  #count = () => {
    if (this.#users > 0 === this.#watching) return;
    this.#watching = this.#users > 0;
    if (this.#watching) {
      const offs = [watchPath(this.#evaluate, this.#options.scope), this.#auth.subscribe(this.#evaluate), onPagesDefined(this.#evaluate)];
      this.#unwatch = () => offs.forEach((off) => off());
      this.#evaluate();
    } else {
      this.#unwatch();
      this.#end();
      this.#set(NO_PAGE);
    }
  };

  /** Compares what there is with what there should be. */
  #evaluate = () => {
    if (!this.#watching) return;
    const path = currentPath(this.#options.scope);
    const { key, config } = findPage(path, this.#options.pages ?? PAGE_WEBSOCKET_CONFIG);
    const token = this.#auth.getToken();
    const denied = isLoginPage(path) ? "login" : !config.enabled ? "disabled" : config.requireAuth && !token ? "unauthenticated" : "";
    const same = key === this.#key && config === this.#snapshot.config && identity(token) === this.#identity;
    const settled = denied ? this.#snapshot.reason === denied : this.#client && !this.#renewable(token);
    if (same && settled) return;
    this.#end();
    [this.#key, this.#identity, this.#token] = [key, identity(token), token];
    if (denied) this.#set({ ...NO_PAGE, config, reason: denied });
    else this.#begin(config);
  };

  /** The token of this user as it is now: it may have been renewed without a word. */
  #renewed() {
    const token = this.#auth.getToken();
    if (identity(token) === this.#identity) this.#token = token;
    return this.#token;
  }

  /** Whether this token may do where the one before was refused. @param {string} token */
  #renewable(token) {
    return this.#snapshot.reason === "refused" && token !== this.#token;
  }

  /** @param {PageConfig} config */
  #begin(config) {
    const { url, WebSocket, clock, maxAttempts, config: own } = this.#options;
    const device = getDeviceInfo();
    const session = (this.#sessions += 1);
    const client = new ConversationsClient({
      base: () => serverBase(url).ws,
      token: () => this.#renewed(),
      connectionId: randomId(),
      device,
      config: { ...getWebSocketDeviceConfig(device), ...own },
      ...(maxAttempts !== undefined && { maxAttempts }),
      ...(WebSocket && { WebSocket }),
      ...(clock && { clock }),
    });
    const offs = [
      client.watch(() => this.#set({ ...client.getSnapshot(), config, session })),
      client.handlers.onAny((message) => this.#events.emit("message", message)),
    ];
    this.#client = client;
    this.#leave = () => offs.forEach((off) => off());
    this.#set({ ...IDLE, config, session, reason: "manual" });
    if (config.autoConnect) client.connect();
    offs.push(startFeatures({ handlers: client.handlers, sendMessage: this.sendMessage, config }));
  }

  /** Leaves the page. */
  #end() {
    this.#leave();
    this.#client?.disconnect();
    this.#leave = () => {};
    [this.#client, this.#key, this.#identity, this.#token] = [null, "", "", ""];
  }

  /** @param {PageSnapshot} snapshot */
  #set(snapshot) {
    this.#snapshot = snapshot;
    this.#events.emit("change");
  }
}

/** Whose token it is: one that was renewed is no reason to connect anew. Unverified. @param {string} token */
function identity(token) {
  try {
    const { sub, tenant } = JSON.parse(atob(token.split(".")[1].replaceAll("-", "+").replaceAll("_", "/")));
    return JSON.stringify([sub, tenant]);
  } catch {
    return token;
  }
}
