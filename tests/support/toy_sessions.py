"""The smallest sessions that fulfil the detach contract, and a Litestar application that serves them. For
tests of the transport.
"""

from __future__ import annotations

import asyncio
from typing import Any

from litestar import Litestar, Request, asgi, get, post

from dualcast.transport import asgi as transport_asgi
from dualcast.transport import frames, inbound
from dualcast.transport.detach import DEFLATE, EXTENSION, DetachUnavailable


class ToySession(asyncio.Protocol):
    """Records what happens to it; echoes WebSocket texts with the prefix `echo:`."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.inbound: object | None = None
        self.max_frame_bytes = 1000
        self.can_ping = True
        self.deflate = False
        self.transport: Any = None
        self.connections: set[Any] = set()
        self.paused = False
        self.initial = b""
        self.ignored = b""
        self.events: list[Any] = []
        self.changed = asyncio.Event()
        self.lost = asyncio.Event()
        self.scope_extensions: dict[str, Any] = {}

    def attached(self, transport: Any, connections: set[Any], *, paused: bool, initial: bytes) -> None:
        self.transport, self.connections, self.paused, self.initial = transport, connections, paused, initial
        connections.add(self)
        self.publish("hello")
        if initial:
            self.data_received(initial)

    def publish(self, text: str) -> None:
        payload = text.encode()
        if self.kind == "sse":
            self.transport.write(frames.chunk(b"data: " + payload + b"\n\n"))
        elif self.deflate:
            self.transport.write(frames.deflated_text(payload))
        else:
            self.transport.write(frames.text(payload))

    def bye(self, code: int = 1000) -> None:
        self.transport.write(frames.LAST_CHUNK if self.kind == "sse" else frames.close(code, "bye"))
        self.transport.close()

    def note(self, *event: Any) -> None:
        self.events.append(event)
        self.changed.set()

    async def wait_for(self, *event: Any) -> None:
        async with asyncio.timeout(10):
            while event not in self.events:
                self.changed.clear()
                await self.changed.wait()

    def data_received(self, data: bytes) -> None:
        if self.kind == "sse":
            self.ignored += data
        else:
            inbound.receive(self, data, deflate=self.deflate)

    def eof_received(self) -> None: ...

    def pause_writing(self) -> None:
        self.paused = True
        self.note("paused")

    def resume_writing(self) -> None:
        self.paused = False
        self.note("resumed")

    def connection_lost(self, exc: Exception | None) -> None:
        self.connections.discard(self)
        self.note("lost")
        self.lost.set()

    def shutdown(self) -> None:
        self.note("shutdown")
        self.bye(1012)

    def on_text(self, text: str) -> None:
        self.note("text", text)
        self.publish("echo:" + text)

    def on_binary(self, data: bytes) -> None:
        self.note("binary", data)

    def on_ping(self, payload: bytes) -> None:
        self.note("ping", payload)
        self.transport.write(frames.pong(payload))

    def on_pong(self, payload: bytes) -> None:
        self.note("pong", payload)

    def on_close(self, code: int, reason: str) -> None:
        self.note("close", code, reason)
        self.transport.write(frames.close(code))
        self.transport.close()

    def on_violation(self, close_code: int, reason: str) -> None:
        self.note("violation", close_code)
        self.transport.write(frames.close(close_code, reason))
        self.transport.close()


class Toy:
    """An application and the sessions it made, newest last."""

    def __init__(self) -> None:
        self.sessions: list[ToySession] = []
        self.scopes: list[dict[str, Any]] = []
        self.gate = asyncio.Event()
        """Handlers under /gated wait for this between the accept (or start) and the detach."""
        self.refused = 0

        @asgi("/sse", copy_scope=False)
        async def sse(scope: Any, receive: Any, send: Any) -> None:
            self.scopes.append(dict(scope))
            session = self.made("sse")
            if not await transport_asgi.respond_sse(
                scope, receive, send, session, [(b"content-type", b"text/event-stream")]
            ):
                self.sessions.remove(session)

        @asgi("/gated-sse", copy_scope=False)
        async def gated_sse(scope: Any, receive: Any, send: Any) -> None:
            await send(
                {
                    "type": "http.response.start",
                    "status": 200,
                    "headers": [(b"content-type", b"text/event-stream")],
                }
            )
            await self.gate.wait()
            try:
                scope["extensions"][EXTENSION](self.made("sse"))
            except DetachUnavailable:
                self.refused += 1
                self.sessions.pop()
                await send({"type": "http.response.body", "body": b"refused", "more_body": False})

        @asgi("/ws", copy_scope=False)
        async def ws(scope: Any, receive: Any, send: Any) -> None:
            self.scopes.append(dict(scope))
            session, headers = self.made("ws"), []
            if DEFLATE in (scope.get("extensions") or {}):
                headers.append((b"sec-websocket-extensions", scope["extensions"][DEFLATE]))
                session.deflate = True
            offered = scope["subprotocols"]
            chosen = offered[-1] if offered else None
            await transport_asgi.respond_websocket(
                scope, receive, send, session, subprotocol=chosen, headers=headers
            )

        @asgi("/gated-ws", copy_scope=False)
        async def gated_ws(scope: Any, receive: Any, send: Any) -> None:
            await receive()
            await send({"type": "websocket.accept"})
            await self.gate.wait()
            try:
                scope["extensions"][EXTENSION](self.made("ws"))
            except DetachUnavailable:
                self.refused += 1
                self.sessions.pop()

        @asgi("/plain-ws", copy_scope=False)
        async def plain_ws(scope: Any, receive: Any, send: Any) -> None:
            await receive()
            await send({"type": "websocket.accept"})
            while (message := await receive())["type"] == "websocket.receive":
                if message.get("text") == "raise":
                    raise ValueError("asked for")
                if message.get("text") == "close":
                    await send({"type": "websocket.close", "code": 4001, "reason": "done"})
                elif message.get("text") == "detach":
                    try:
                        scope["extensions"][EXTENSION](self.made("ws"))
                    except DetachUnavailable:
                        self.refused += 1
                        self.sessions.pop()
                        await send({"type": "websocket.send", "text": "refused"})
                else:
                    await send(
                        {
                            "type": "websocket.send",
                            **{k: message[k] for k in ("text", "bytes") if message.get(k)},
                        }
                    )
            self.scopes.append(message)

        @asgi("/deny-ws", copy_scope=False)
        async def deny_ws(scope: Any, receive: Any, send: Any) -> None:
            await receive()
            how = scope["query_string"]
            if how == b"close":
                await send({"type": "websocket.close", "code": 1000})
            elif how == b"raise":
                raise ValueError("asked for")
            elif how == b"silent":
                await asyncio.Event().wait()
            elif how == b"return":
                return
            else:
                headers = [(b"content-type", b"text/plain"), (b"retry-after", b"7")]
                await send({"type": "websocket.http.response.start", "status": 429, "headers": headers})
                await send({"type": "websocket.http.response.body", "body": b"slow ", "more_body": True})
                await send({"type": "websocket.http.response.body", "body": b"down", "more_body": False})

        @get("/hello")
        async def hello() -> str:
            return "hello"

        @post("/echo")
        async def echo(request: Request[Any, Any, Any]) -> str:
            return str(len(await request.body()))

        handlers = [sse, gated_sse, ws, gated_ws, plain_ws, deny_ws, hello, echo]
        self.app = Litestar(handlers, openapi_config=None, logging_config=None)

    def made(self, kind: str) -> ToySession:
        session = ToySession(kind)
        self.sessions.append(session)
        return session

    async def session(self, index: int = -1) -> ToySession:
        """The session at `index`, as soon as it is attached."""
        async with asyncio.timeout(10):
            while not self.sessions or self.sessions[index].transport is None:
                await asyncio.sleep(0.005)
        return self.sessions[index]
