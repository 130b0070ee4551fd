// The package as it is shipped: size, types, contents, and its README.

import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { existsSync, mkdtempSync, readFileSync, readdirSync, rmSync } from "node:fs";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { gzipSync } from "node:zlib";
import { test } from "node:test";
import { Server, WebSocket, token, until } from "./support/server.js";

const CORE = fileURLToPath(new URL("../../../clients/core/", import.meta.url));
const require = createRequire(join(CORE, "package.json"));
const read = (name) => readFileSync(join(CORE, name), "utf8");
const LIMIT = 12_000;

for (const entry of ["index", "event_source"]) {
  test(`${entry}.js and all it imports are at most ${LIMIT} bytes, minified and gzipped`, async (t) => {
    const options = { entryPoints: [join(CORE, "src", entry + ".js")], bundle: true, minify: true, splitting: true, format: "esm", target: "es2022", write: false, outdir: "out", metafile: true };
    const { outputFiles, metafile } = await require("esbuild").build(options);
    const [[first]] = Object.entries(metafile.outputs).filter(([, one]) => one.entryPoint?.endsWith(`${entry}.js`));
    const names = [first];
    for (const name of names) {
      for (const { path, kind } of metafile.outputs[name].imports) if (kind === "import-statement" && !names.includes(path)) names.push(path);
    }
    const found = outputFiles.filter(({ path }) => names.some((name) => path.endsWith(name)));
    assert.equal(found.length, names.length);
    const [bytes, later] = [found, outputFiles.filter((file) => !found.includes(file))].map((files) =>
      files.reduce((sum, { contents }) => sum + gzipSync(contents, { level: 9 }).length, 0),
    );
    t.diagnostic(`${bytes} bytes; ${later} more for commands over REST and late gaps, when there are any`);
    assert.ok(bytes <= LIMIT, `${bytes} bytes`);
  });
}

const tsc = (...args) => execFileSync(process.execPath, [join(CORE, "../node_modules/typescript/bin/tsc"), ...args], { cwd: CORE, encoding: "utf8" });

test("strict types hold, and declarations come out", () => {
  const folder = mkdtempSync(join(tmpdir(), "dc-types-"));
  try {
    tsc("--noEmit");
    tsc("--declaration", "--emitDeclarationOnly", "--noEmit", "false", "--outDir", folder);
    const index = readFileSync(join(folder, "index.d.ts"), "utf8");
    for (const name of ["DualcastClient", "Options", "Status", "Publication"]) assert.match(index, new RegExp(`export .*\\b${name}\\b`), name);
    assert.match(readFileSync(join(folder, "client.d.ts"), "utf8"), /subscribe\(...channels: string\[\]\): Promise<void>/);
    assert.match(readFileSync(join(folder, "event_source.d.ts"), "utf8"), /class DualcastEventSource extends EventTarget/);
  } catch (error) {
    assert.fail(error.stdout ?? error);
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
});

test("no dependency, pinned tools, no host in the lock, every entry exists", () => {
  const found = JSON.parse(read("package.json"));
  assert.equal(found.dependencies, undefined);
  const { devDependencies } = JSON.parse(read("../package.json"));
  for (const version of Object.values(devDependencies)) assert.match(version, /^(npm:[a-z-]+@)?\d+\.\d+\.\d+$/);
  assert.doesNotMatch(read("../package-lock.json"), /https?:\/\//);
  const named = Object.values(found.exports).filter((one) => one.default && !one.default.includes("*"));
  for (const { default: path } of named) assert.ok(existsSync(join(CORE, path)), path);
  assert.equal(read("LICENSE"), readFileSync(join(CORE, "../../LICENSE"), "utf8"));
});

test("modules are small and import only one another", () => {
  const files = readdirSync(join(CORE, "src"), { recursive: true }).filter((name) => name.endsWith(".js"));
  for (const name of files) {
    const text = read(join("src", name));
    assert.ok(text.split("\n").length <= 401, name);
    for (const [, from] of text.matchAll(/^(?:import|export) .* from "(.*)";$/gm)) assert.match(from, /^\.\.?\//, name);
  }
});

test("the examples of the README run", async () => {
  const server = await Server.start({ "tenancy.public_channels": "topic:*" });
  const sources = [];
  try {
    for (const one of ["first", "second"]) await server.notify("alice", one);
    const shown = [];
    const [client, source] = [...read("README.md").matchAll(/```js\n([\s\S]*?)```/g)].map(([, code]) => code);
    const { DualcastClient } = await import(join(CORE, "src/index.js"));
    const { DualcastEventSource } = await import(join(CORE, "src/event_source.js"));
    const run = (code) => {
      const body = code.replace(/^import .*$/m, "").replaceAll("https://push.example.com", server.url).replace("token=…", "token=" + token("alice"));
      const names = ["DualcastClient", "DualcastEventSource", "show", "fetch"];
      const AsyncFunction = (async () => {}).constructor;
      const Made = class extends DualcastClient {
        constructor(options) {
          super({ ...options, WebSocket, storage: null });
          sources.push({ close: () => this.disconnect() });
        }
      };
      const Source = class extends DualcastEventSource {
        constructor(url) {
          super(url, { WebSocket });
          sources.push(this);
        }
      };
      const session = async () => new Response(token("alice"));
      return new AsyncFunction(...names, body)(Made, Source, (text) => shown.push(text), session);
    };
    await run(client);
    await until(() => shown.includes("0 unread"), shown.join());
    await server.publish("topic:prices", "price", { EUR: 1.09 });
    await until(() => shown.includes("topic:prices: 1.09"));
    shown.length = 0;
    await run(source);
    await until(() => sources.at(-1).readyState === 1);
    await server.notify("alice", "third");
    await until(() => shown.filter((text) => text === "third").length === 2, shown.join());
  } finally {
    for (const one of sources) one.close();
    await server.close();
  }
});
