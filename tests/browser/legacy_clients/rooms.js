// Contract `rooms`, section 4.5. `options`: `user`, `token`, `room`; `pace` divides the waits.

const MAX_ATTEMPTS = 5;
const AGAIN_MS = 3000;
const PING_MS = 30000;

export class RoomsClient {
  constructor(options) {
    this.options = { pace: 1, pingPace: 1, ...options };
    this.items = [];
    this.types = [];
    this.closes = [];
    this.opens = 0;
    this.attempts = 0;
    this.connect();
    // Once, when the page is made; after a reconnect nobody subscribes again.
    this.socket.addEventListener("open", () => this.send({ type: "subscribe", room: this.options.room }));
  }

  connect() {
    // The token is not encoded.
    this.socket = new WebSocket(`ws://${location.host}/api/v1/ws/${this.options.user}?token=${this.options.token}`);
    this.socket.onopen = () => {
      this.opens += 1;
      this.attempts = 0;
      this.send({ type: "get_stats" });
      clearInterval(this.timer);
      this.timer = setInterval(() => this.ping(), PING_MS / this.options.pingPace);
    };
    this.socket.onmessage = (event) => this.take(JSON.parse(event.data));
    this.socket.onclose = (event) => {
      clearInterval(this.timer);
      this.closes.push(event.code);
      if (event.code === 1000) return;
      if (this.attempts >= MAX_ATTEMPTS) {
        this.stopped = true;
        return;
      }
      this.attempts += 1;
      setTimeout(() => this.connect(), AGAIN_MS / this.options.pace);
    };
  }

  // Tests let it tick a hundred times as fast: then it meets the moment between a close frame and the close.
  ping() {
    if (this.socket.readyState === WebSocket.OPEN) this.send({ type: "ping" });
  }

  send(frame) {
    this.socket.send(JSON.stringify(frame));
  }

  take(frame) {
    this.types.push(frame.type);
    if (frame.type === "notification") {
      const level = ["error", "warning", "success"].includes(frame.data.notification_type) ? frame.data.notification_type : "info";
      this.items.push(["notification", frame.data.title, level]);
    } else if (frame.type === "system_message") this.items.push(["system", frame.data.message]);
    else if (frame.type === "stats") this.stats = frame.data;
    else if (frame.type === "error") this.items.push(["error", frame.message]);
    else if (frame.type === "sync_update") this.items.push(["sync", frame.data.n]);
    else if (frame.type === "room_message") this.items.push(["room", frame.data]);
  }

  leave() {
    this.socket.close(1000, "Manual disconnect");
  }
}
