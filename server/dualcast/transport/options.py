"""The settings of this room. Every limit here protects the process before any application code has run."""

from __future__ import annotations

from typing import Literal

import msgspec


class TransportSettings(msgspec.Struct, frozen=True, kw_only=True):
    """What the listening sockets, the HTTP edge and detached connections are allowed; names carry units."""

    host: str = "127.0.0.1"
    port: int = 8000
    """0 takes a free port."""
    workers: int = 1
    """Processes. More than one share the port by SO_REUSEPORT."""
    loop: Literal["uvloop", "asyncio"] = "uvloop"
    backlog: int = 4096
    """Bounded by the kernel's net.core.somaxconn."""
    root_path: str = ""

    header_s: float = 10.0
    """A request's headers must be complete this long after the connection opened or its first byte came."""
    header_bytes: int = 16 * 1024
    body_s: float = 30.0
    """A request's body must be complete this long after its first part."""
    handshake_s: float = 10.0
    """The application must accept or deny a WebSocket within this time; also how long a peer may take to
    answer our close frame.
    """
    keep_alive_s: int = 5
    """Idle time between two requests of one connection."""
    max_pipelined: int = 16
    """Requests waiting behind a running one on the same connection."""

    max_connections_per_address: int = 200
    """Open connections per IPv4 address or IPv6 /64; 0 is no limit. Loopback and trusted proxies are exempt.
    """
    trusted_proxies: tuple[str, ...] = ("127.0.0.1", "::1")
    """Addresses and networks whose X-Forwarded-For and X-Forwarded-Proto are believed."""

    max_frame_bytes: int = 64 * 1024
    """Inbound WebSocket message, before and after decompression; for connections the application never
    detaches.
    """
    early_bytes: int = 64 * 1024
    """Kept of what comes behind an upgrade request before the detach; beyond it reading pauses."""
    compression: bool = False
    """Offer permessage-deflate (no context takeover) to the application."""
    detach: bool = True
    """Off: uvicorn's stock protocol classes and the plain-ASGI fallback."""

    write_high_bytes: int = 64 * 1024
    write_low_bytes: int = 16 * 1024
    """Water marks of detached connections: `pause_writing` above, `resume_writing` at or below."""
    tcp_user_timeout_ms: int = 30_000
    """Unacknowledged data or a closed window for this long ends a connection; 0 is the kernel's default
    (minutes).
    """
    tcp_keepalive_s: int = 30
    """Idle seconds before the first TCP keepalive probe; 0 is off."""

    drain_s: float = 10.0
    """Time `on_drain` has to close sessions in batches before the server shuts connections down itself."""
    grace_s: float = 5.0
    """Time open requests have after the drain; then sockets are aborted."""
    freeze_gc: bool = True
    """Move everything alive after start-up out of the collector's sight. Off inside test processes."""
