// What the tests drive: `start(name, kind, options)` makes a client; `clients[name]` is it.
// Every client keeps: `opens` (times connected), `closes` (codes), `items` (what its user would see, in order).

import { ChatClient } from "./conversations.js";
import { FallbackClient, NotificationSocket, NotificationStream, PatientStream, TaskSocket } from "./notifications.js";
import { ProgressClient } from "./progress.js";
import { RoomsClient } from "./rooms.js";
import { TopicsClient } from "./topics.js";

const KINDS = {
  chat: ChatClient,
  fallback: FallbackClient,
  notificationSocket: NotificationSocket,
  notificationStream: NotificationStream,
  patientStream: PatientStream,
  task: TaskSocket,
  progress: ProgressClient,
  rooms: RoomsClient,
  topics: TopicsClient,
};

window.clients = {};
window.start = (name, kind, options) => {
  window.clients[name] = new KINDS[kind](options);
  return true;
};
document.body.dataset.ready = "yes";
