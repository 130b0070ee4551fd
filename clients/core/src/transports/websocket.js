/**
 * A driver over a `WebSocket` class (the browser's, or one with the same interface).
 * @param {typeof WebSocket} Socket
 * @returns {import("./port.js").Driver}
 */
export function websocketDriver(Socket) {
  return (request, on) => {
    const socket = new Socket(request.url, request.protocols);
    socket.onopen = () => on.opened();
    socket.onmessage = (event) => {
      on.heard();
      on.text(String(event.data));
    };
    socket.onclose = ({ code, reason }) => on.closed({ code, reason });
    socket.onerror = () => {}; // `close` follows and says more
    return { send: (text) => socket.send(text), close: () => socket.close(1000) };
  };
}
