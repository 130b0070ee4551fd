// Buttons that publish or ask over HTTP. `as`: `user` (their token), `admin` (the token to publish with) or
// `backend` (the own API, which wants a real token with the role publisher).

import { stamp } from "./test-stamps.js";

const part = encodeURIComponent;
const pause = (ms) => new Promise((done) => setTimeout(done, ms));
const STEP_MS = 400;
const notice = () => ({ title: "Hello", message: stamp(), type: "info", category: "analysis" });

async function notify(to) {
  await to.listen();
  return to.call("POST", `/api/v1/ws/notify/${part(to.user)}`, notice(), "admin");
}

async function runTask(to) {
  const task = to.fresh("task");
  const path = `/v1/tasks/${part(task)}`;
  await to.call("PUT", path, { owner: to.user, kind: "analysis", total_steps: 5 }, "backend");
  to.watch("task", "task");
  for (let step = 1; step <= 5; step++) {
    await pause(STEP_MS);
    await to.call("POST", path, { step, message: `step ${step} of 5` }, "backend");
  }
  return to.call("POST", path, { state: "completed", message: "完成" }, "backend");
}

async function runBatch(to) {
  const batch = to.fresh("batch");
  await to.call("PUT", `/v1/batches/${part(batch)}`, { owner: to.user, total: 3 }, "backend");
  to.watch("", "batch");
  for (const number of [1, 2, 3]) {
    const path = `/v1/tasks/${part(`${batch}-${number}`)}`;
    await to.call("PUT", path, { owner: to.user, batch }, "backend");
    await pause(STEP_MS);
    await to.call("POST", path, { state: number === 2 ? "failed" : "completed" }, "backend");
  }
  return { batch };
}

async function runImport(to) {
  const task_id = to.field("import");
  to.send({ type: "subscribe", topic: `import:${task_id}` });
  for (let processed = 0; processed <= 1000; processed += 250) {
    const status = processed === 1000 ? "completed" : "processing";
    const data = { task_id, status, total: 1000, processed, success: processed };
    await pause(STEP_MS);
    await to.publish(`topic:import:${task_id}`, "topic_message", { type: "import_progress", task_id, data });
  }
  return { task_id };
}

async function upload(to) {
  const form = new FormData();
  form.set("file", new Blob(["a,b\n1,2\n"], { type: "text/csv" }), "a.csv");
  form.set("data_type", "sales");
  return to.call("POST", "/api/data/upload", form, "user");
}

async function reports(to) {
  const report_ids = ["r1", "r2", "r3"];
  const made = await to.call("POST", "/api/reports/batch/generate", { report_ids, output_format: "pdf" }, "user");
  to.remember("batch", made.batch_id);
  return made;
}

const chat = (to) => `/api/v1/chat/${part(to.field("conversation"))}`;

async function messageToMe(to) {
  const body = { content: stamp(), sender_name: "Admin", participants: [to.user, to.publisher] };
  const sent = await to.call("POST", `${chat(to)}/send`, body, "admin");
  to.remember("message", sent.message_id);
  return sent;
}

/** By contract: `{label, as, run(to)}`; `dev`: only with `serve --dev`. */
export const ACTIONS = {
  notifications: [
    { label: "Notify", as: "admin", run: notify },
    { label: "Run a task", as: "backend", run: runTask },
    { label: "Run a batch", as: "backend", run: runBatch },
    { label: "Unread count", as: "user", run: (to) => to.call("GET", "/api/notifications/unread_count", null, "user") },
    { label: "Mark all read", as: "user", run: (to) => to.call("POST", "/api/notifications/read_all", null, "user") },
    { label: "Statistics", as: "admin", run: (to) => to.call("GET", "/api/ws/stats", null, "admin") },
  ],
  rooms: [
    { label: "Notify", as: "admin", run: notify },
    { label: "Demo notification", as: "user", run: (to) => to.call("POST", "/api/v1/notifications/demo", null, "user") },
    {
      label: "Sync update",
      as: "admin",
      run: (to) => to.call("POST", `/api/v1/ws/sync-update/${part(to.user)}`, { device: "phone", what: stamp() }, "admin"),
    },
    {
      label: "System message",
      as: "admin",
      run: (to) =>
        to.call("POST", "/api/v1/ws/broadcast", { message: { message: stamp() }, target_users: [to.user] }, "admin"),
    },
    {
      label: "To the room",
      as: "backend",
      run: (to) => to.publish(`room:${to.field("room")}`, "room_message", { type: "system_message", data: { message: stamp() } }),
    },
    { label: "Connections", as: "admin", run: (to) => to.call("GET", `/api/v1/ws/connections/${part(to.user)}`, null, "admin") },
    { label: "Statistics", as: "admin", run: (to) => to.call("GET", "/api/v1/ws/stats", null, "admin") },
  ],
  topics: [
    {
      label: "Notify",
      as: "admin",
      run: async (to) => {
        await to.listen();
        const notification = { title: "Hello", content: stamp(), level: "success" };
        return to.call("POST", "/api/ws/notify", { notification, target_users: [to.user] }, "admin");
      },
    },
    { label: "Broadcast", as: "admin", run: (to) => to.call("POST", "/api/ws/broadcast", { text: stamp() }, "admin") },
    {
      label: "To the topic",
      as: "backend",
      run: (to) =>
        to.publish(`topic:${to.field("topic")}`, "topic_message", {
          type: "wallet_update",
          wallet_address: "0x1",
          data: { score: 85, note: stamp() },
        }),
    },
    { label: "Run an import", as: "backend", run: runImport },
    { label: "Statistics", as: "admin", run: (to) => to.call("GET", "/api/ws/stats", null, "admin") },
  ],
  conversations: [
    { label: "Message to me", as: "admin", run: messageToMe },
    { label: "They type", as: "admin", run: (to) => to.call("POST", `${chat(to)}/typing`, { is_typing: true }, "admin") },
    {
      label: "They read",
      as: "admin",
      run: (to) => to.call("POST", `${chat(to)}/read`, { message_ids: [to.recall("message") ?? "m1"] }, "admin"),
    },
    { label: "I send", as: "user", run: (to) => to.call("POST", `${chat(to)}/send`, { content: stamp() }, "user") },
    { label: "Configuration", as: "user", run: (to) => to.call("GET", "/api/ws/config", null, "user") },
  ],
  progress: [
    { label: "Batch of reports", as: "user", dev: true, run: reports },
    {
      label: "Cancel the batch",
      as: "user",
      dev: true,
      run: (to) => to.call("POST", `/api/reports/batch/${part(to.recall("batch") ?? "none")}/cancel`, null, "user"),
    },
    {
      label: "Import",
      as: "user",
      dev: true,
      run: (to) => to.call("POST", "/api/data/import", { source_type: "csv", file_path: "a.csv", data_type: "sales" }, "user"),
    },
    { label: "Upload a file", as: "user", dev: true, run: upload },
    {
      label: "Industries",
      as: "user",
      dev: true,
      run: (to) => to.call("POST", "/api/reports/multi-industry/generate", ["steel", "paper"], "user"),
    },
    { label: "Statistics", as: "admin", run: (to) => to.call("GET", "/api/websocket/stats", null, "admin") },
  ],
};
