// Contract `progress`, section 7.7. `options.client`: the client id. It has no token, never comes back, and never
// answers the server's ping.

export class ProgressClient {
  constructor(options) {
    this.items = [];
    this.closes = [];
    this.types = [];
    this.opens = 0;
    this.socket = new WebSocket(`ws://${location.host}/ws/${options.client ?? "admin"}`);
    this.socket.onopen = () => (this.opens += 1);
    this.socket.onclose = (event) => this.closes.push(event.code);
    this.socket.onmessage = (event) => this.take(JSON.parse(event.data));
  }

  say(frame) {
    this.socket.send(JSON.stringify(frame));
  }

  take(frame) {
    this.types.push(frame.type);
    if (frame.type.endsWith("_progress")) {
      const percent = Math.round((frame.progress / frame.total) * 100);
      this.items.push([frame.message, frame.status, `${percent}%`]);
    } else if (frame.type === "echo") this.items.push(["echo", frame.original_message]);
  }
}
