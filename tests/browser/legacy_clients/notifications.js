// Contract `notifications`, section 3.7. `options`: `token`; `pace` divides the waits (1: as in the contract).

const MAX_ATTEMPTS = 5;
const STREAM_AGAIN_MS = 3000;

/** What both transports do with a notification: no look at its id. */
class Shown {
  constructor(options) {
    this.options = { pace: 1, ...options };
    this.items = [];
    this.closes = [];
    this.opens = 0;
    this.unread = 0;
    this.poll();
  }

  show(notification) {
    if (!notification.title || !notification.type) return; // dropped
    this.items.push(notification);
    if (!notification.status || notification.status === "unread") this.unread += 1;
  }

  /** What the bell asks for every 30 s, here at the start and when a test wants it. */
  async poll() {
    const headers = { authorization: `Bearer ${this.options.token}` };
    const answer = await fetch("/api/notifications/unread_count", { headers });
    this.counted = (await answer.json()).data?.count;
    return this.counted;
  }
}

/** Closes its stream on any error and opens a new one after 3 s, for ever; never sends Last-Event-ID. */
export class NotificationStream extends Shown {
  constructor(options) {
    super(options);
    this.connect();
  }

  connect() {
    this.source?.close();
    this.source = new EventSource(`/api/notifications/stream?token=${encodeURIComponent(this.options.token)}`);
    this.source.addEventListener("connected", () => (this.opens += 1));
    this.source.addEventListener("notification", (event) => this.show(JSON.parse(event.data)));
    this.source.addEventListener("heartbeat", () => {});
    this.source.onerror = () => {
      this.closes.push("error");
      this.source.close();
      setTimeout(() => this.connect(), STREAM_AGAIN_MS / this.options.pace);
    };
  }
}

/** Leaves coming back to the browser, as pages without an `onerror` do. */
export class PatientStream extends Shown {
  constructor(options) {
    super(options);
    this.source = new EventSource(`/api/notifications/stream?token=${encodeURIComponent(this.options.token)}`);
    this.source.addEventListener("connected", () => (this.opens += 1));
    this.source.addEventListener("notification", (event) => this.show(JSON.parse(event.data)));
    this.source.addEventListener("error", () => this.closes.push("error"));
  }
}

/** Comes back after any close, also 1000; at most five times in a row without an open between. */
export class NotificationSocket extends Shown {
  constructor(options) {
    super(options);
    this.attempts = 0;
    this.connect();
  }

  address() {
    return "/api/ws/notifications";
  }

  connect() {
    this.socket = new WebSocket(
      `ws://${location.host}${this.address()}?token=${encodeURIComponent(this.options.token)}`,
    );
    this.socket.onopen = () => {
      this.opens += 1;
      this.attempts = 0;
    };
    this.socket.onmessage = (event) => this.take(JSON.parse(event.data));
    this.socket.onclose = (event) => {
      this.closes.push(event.code);
      if (this.attempts >= MAX_ATTEMPTS) {
        this.gaveUp();
        return;
      }
      const wait = Math.min(1000 * 2 ** this.attempts, 30000);
      this.attempts += 1;
      setTimeout(() => this.connect(), wait / this.options.pace);
    };
  }

  take(frame) {
    if (frame.type === "notification") this.show(frame.data);
    else if (frame.type !== "connected" && frame.type !== "heartbeat") console.warn(`unknown type ${frame.type}`);
  }

  gaveUp() {
    this.stopped = true;
  }
}

/** The variant that falls back to the stream and never tries the socket again. */
export class FallbackClient extends NotificationSocket {
  gaveUp() {
    this.stopped = true;
    this.stream = new NotificationStream(this.options);
    this.items = this.stream.items;
  }
}

/** One task; `options.task`. It does not look whether the task has ended. */
export class TaskSocket extends NotificationSocket {
  address() {
    return `/api/ws/tasks/${encodeURIComponent(this.options.task)}`;
  }

  take(frame) {
    if (["progress", "completed", "error"].includes(frame.type)) this.items.push([frame.type, frame.data.step ?? null]);
    else if (frame.type !== "connected" && frame.type !== "heartbeat") console.warn(`unknown type ${frame.type}`);
  }
}
