// Contract `topics`, section 5.7. `options`: `token` ("" for none), `topics`; `pingPace` divides the ping interval.

const MAX_ATTEMPTS = 5;
const PING_MS = 30000;

export class TopicsClient {
  constructor(options) {
    this.options = { pingPace: 1, ...options };
    this.items = [];
    this.closes = [];
    this.types = [];
    this.opens = 0;
    this.attempts = 0;
    this.byType = { notification: (frame) => this.items.push(["notification", frame.data.content, frame.data.level]) };
    this.byTopic = {};
    this.connect();
    this.socket.addEventListener("open", () => {
      for (const topic of this.options.topics ?? []) this.subscribe(topic);
    });
  }

  subscribe(topic) {
    this.byTopic[topic] = (frame) => this.items.push([topic, frame.type, this.readable(frame)]);
    this.socket.send(JSON.stringify({ type: "subscribe", topic }));
  }

  /** What a page of imports shows; other topics: their data. */
  readable(frame) {
    if (frame.type !== "import_progress") return frame.data;
    const { task_id, status, total, success, failed, skipped, progress, eta } = frame.data;
    return [task_id, status, total, success, failed, skipped, progress, eta];
  }

  connect() {
    const query = this.options.token ? `?token=${this.options.token}` : ""; // not encoded
    this.socket = new WebSocket(`ws://${location.host}/api/ws${query}`);
    this.socket.onopen = () => {
      this.opens += 1;
      this.attempts = 0;
      clearInterval(this.timer);
      this.timer = setInterval(() => this.ping(), PING_MS / this.options.pingPace);
    };
    this.socket.onmessage = (event) => this.take(JSON.parse(event.data));
    this.socket.onclose = (event) => {
      clearInterval(this.timer);
      this.closes.push(event.code);
      if (event.code === 1000 || this.attempts >= MAX_ATTEMPTS) return;
      this.attempts += 1;
      setTimeout(() => this.connect(), 3000 * 2 ** (this.attempts - 1)); // and no subscribe after it
    };
  }

  // Tests let it tick a hundred times as fast: then it meets the moment between a close frame and the close.
  ping() {
    if (this.socket.readyState === WebSocket.OPEN) this.socket.send('{"type":"ping"}');
  }

  take(frame) {
    this.types.push(frame.type);
    if (frame.type === "pong") return;
    if (frame.type === "connection") this.client_id = frame.client_id;
    this.byType[frame.type]?.(frame);
    this.byTopic[frame.topic]?.(frame); // a frame may reach a handler of each sort
  }
}
