// Contract `conversations`, section 6.8. `options`: `user`, `token`, `device`, `connection`; `beatPace` divides the
// heartbeat interval.

const MAX_ATTEMPTS = 15;
const BEAT_MS = 45000;
const TIMEOUT_MS = 20000;
const DISPATCHED = ["new_message", "presence_update", "typing_update", "conversation_update", "system_notification"];

export class ChatClient {
  constructor(options) {
    this.options = { beatPace: 1, ...options };
    this.items = [];
    this.others = [];
    this.closes = [];
    this.opens = 0;
    this.alive = 0;
    this.attempts = 0;
    this.over = false;
    this.connect();
  }

  connect() {
    const query = new URLSearchParams({
      token: this.options.token,
      userId: this.options.user,
      userType: "customer",
      connectionId: this.options.connection,
      deviceType: this.options.device,
      deviceId: `device-${this.options.connection}`,
      platform: navigator.platform,
      screenResolution: `${screen.width}x${screen.height}`,
    });
    const socket = new WebSocket(`ws://${location.host}/api/v1/ws?${query}`);
    const timeout = setTimeout(() => socket.close(), TIMEOUT_MS);
    this.socket = socket;
    socket.onopen = () => {
      clearTimeout(timeout);
      this.opens += 1;
      this.attempts = 0;
      clearInterval(this.timer);
      this.timer = setInterval(() => this.beat(), BEAT_MS / this.options.beatPace);
    };
    socket.onmessage = (event) => this.take(JSON.parse(event.data));
    socket.onclose = (event) => {
      clearTimeout(timeout);
      clearInterval(this.timer);
      this.closes.push(event.code);
      if (this.over || (event.wasClean && event.code === 1000) || this.attempts >= MAX_ATTEMPTS) return;
      const wait = 2000 * 2 ** this.attempts;
      this.attempts += 1;
      setTimeout(() => this.over || this.connect(), Math.min(wait + Math.random() * 0.3 * wait, 30000));
    };
  }

  // Tests let it tick a hundred times as fast: then it meets the moment between a close frame and the close.
  beat() {
    if (this.socket.readyState !== WebSocket.OPEN) return;
    this.socket.send(JSON.stringify({ type: "heartbeat", timestamp: Date.now() }));
  }

  take(frame) {
    if (frame.type === "heartbeat") {
      this.alive += 1;
      return;
    }
    const name = frame.event_type ?? frame.action; // never `event`
    if (!name || frame.data === undefined) {
      console.error(`not understood: ${JSON.stringify(frame)}`);
      return;
    }
    if (!DISPATCHED.includes(name)) this.others.push([name, frame.data]);
    else if (name === "new_message" && frame.action === "new_message") this.items.push(["message", frame.data.content]);
    else if (name === "typing_update") this.items.push(["typing", frame.data.user_id, frame.data.is_typing]);
    else if (name === "presence_update") this.items.push(["presence", frame.data.user_id, frame.data.status]);
    else if (name === "system_notification") this.items.push(["system", frame.data.title]);
  }

  disconnect() {
    this.over = true;
    this.socket.close(1000);
  }
}
