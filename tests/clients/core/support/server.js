// A dualcast server as a process of its own. DUALCAST_BIN names the command.

import { spawn } from "node:child_process";
import { createHmac, randomInt } from "node:crypto";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";

const SECRET = "a secret of the tests that is long enough";
const CORE = new URL("../../../../clients/core/", import.meta.url);
/** The WebSocket class of `ws`: Node 20 has none of its own. */
export const WebSocket = createRequire(new URL("package.json", CORE))("ws");

const part = (value) => Buffer.from(JSON.stringify(value)).toString("base64url");

/** A token the server accepts. */
export function token(sub, { roles = [], channels = [], lifeS = 3_600 } = {}) {
  const now = Math.floor(Date.now() / 1_000);
  const body = `${part({ alg: "HS256", typ: "JWT" })}.${part({ sub, roles, channels, iat: now, exp: now + lifeS })}`;
  return `${body}.${createHmac("sha256", SECRET).update(body).digest("base64url")}`;
}

const ADMIN = () => token("root", { roles: ["admin", "publisher", "operator"] });

/** A free port below the ephemeral range: while a server is down nobody takes it, least of all a client that connects to it from there. */
function freePort() {
  return new Promise((resolve) => {
    const port = randomInt(20_000, 32_768);
    const probe = createServer().once("error", () => resolve(freePort()));
    probe.listen(port, "127.0.0.1", () => probe.close(() => resolve(port)));
  });
}

export class Server {
  static async start(settings = {}) {
    const server = new Server();
    server.folder = mkdtempSync(join(tmpdir(), "dc-client-"));
    server.port = await freePort();
    server.url = `http://127.0.0.1:${server.port}`;
    server.settings = { "limits.connections_per_user": 0, "delivery.retry_min_ms": 100, "delivery.retry_max_ms": 200, "server.drain_s": 1, "delivery.move_spread_s": 1, "delivery.move_grace_s": 1, ...settings };
    writeFileSync(join(server.folder, "empty.toml"), "");
    await server.up();
    return server;
  }

  async up() {
    const names = Object.entries(this.settings).map(([name, value]) => ["DUALCAST_" + name.toUpperCase().replace(".", "__"), String(value)]);
    const env = { PATH: process.env.PATH, DUALCAST_JWT_SECRET: SECRET, ...Object.fromEntries(names) };
    const args = ["serve", "--engine", "sqlite", "--port", String(this.port), "--data-dir", join(this.folder, "data")];
    this.log = "";
    this.process = spawn(process.env.DUALCAST_BIN || "dualcast", args, { env, stdio: ["ignore", "pipe", "pipe"] });
    const failed = new Promise((_, reject) => this.process.once("error", reject));
    for (const stream of [this.process.stdout, this.process.stderr]) stream.on("data", (data) => (this.log = (this.log + data).slice(-8_000)));
    this.ended = new Promise((resolve) => this.process.once("exit", resolve));
    const deadline = Date.now() + 40_000;
    for (;;) {
      const ready = await Promise.race([failed, fetch(this.url + "/readyz").then((answer) => answer.ok, () => false)]);
      if (ready) return;
      if (Date.now() > deadline || this.process.exitCode !== null) throw new Error("the server did not start:\n" + this.log);
      await new Promise((done) => setTimeout(done, 50));
    }
  }

  /** SIGTERM drains, SIGKILL does not. */
  async down(signal = "SIGKILL") {
    this.process.kill(signal);
    await this.ended;
  }

  async close() {
    await this.down();
    rmSync(this.folder, { recursive: true, force: true });
  }

  async call(method, path, body, bearer = ADMIN()) {
    const headers = { authorization: `Bearer ${bearer}`, "content-type": "application/json", "if-match": "*" };
    const answer = await fetch(this.url + path, { method, headers, body: body && JSON.stringify(body) });
    const found = await answer.json().catch(() => null);
    if (!answer.ok) throw new Error(`${method} ${path}: ${answer.status} ${JSON.stringify(found)}`);
    return found;
  }

  notify(user, title, more = {}) {
    return this.call("POST", "/v1/notifications", { to: { user }, title, ...more });
  }

  publish(channel, type, data, more = {}) {
    return this.call("POST", "/v1/publish", { channel, type, data, ...more });
  }

  /** As many notifications as `titles`, in their order. */
  async notifyAll(user, titles) {
    for (let at = 0; at < titles.length; at += 500) {
      await this.call("POST", "/v1/notifications/batch", titles.slice(at, at + 500).map((title) => ({ to: { user }, title, store: false })));
    }
  }

  /** Moves the tenant, by every stage between where that is the way. */
  async stage(stage, more = {}) {
    const path = "/v1/tenants/default/migration";
    const order = ["sse", "shadow", "fallback", "websocket"];
    const { record } = await this.call("GET", path);
    const on = order.slice(order.indexOf(record.stage) + 1, order.indexOf(stage));
    for (const one of [...on, stage]) await this.call("PUT", path, { stage: one, why: "a test", force: true, ...more });
  }
}

/** Waits until `condition()` is true. */
export async function until(condition, what = String(condition), ms = 20_000) {
  const deadline = Date.now() + ms;
  while (!condition()) {
    if (Date.now() > deadline) throw new Error(`never true: ${what}`);
    await new Promise((done) => setTimeout(done, 10));
  }
}
