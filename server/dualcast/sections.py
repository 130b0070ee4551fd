"""The sections of the settings, with their units, limits and defaults. `settings` reads them from file and
environment; `mapping` hands each room its share.
"""

from __future__ import annotations

from ipaddress import ip_network
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from msgspec import Meta, Struct

from dualcast.model.channel import check_tenant
from dualcast.model.errors import DualcastError

Engine = Literal["sqlite", "redis", "memory"]
Algorithm = Literal["HS256", "RS256", "ES256", "EdDSA"]
Port = Annotated[int, Meta(ge=0, le=65_535)]
Count = Annotated[int, Meta(ge=0)]
Positive = Annotated[int, Meta(ge=1)]
Seconds = Annotated[float, Meta(gt=0)]
Place = Annotated[str, Meta(pattern=r"^(\[[0-9A-Fa-f:.]+\]|[^\[\]:/@\s]+)(:[0-9]{1,5})?$")]
"""host, host:port or [v6]:port."""
Heartbeat = Annotated[int, Meta(ge=5)]
"""A session is looked at every 5 s (`session.sweep`): more often is not possible."""

MIN_SECRET_BYTES = 32
"""Shortest HS256 key (RFC 7518 section 3.2: at least as long as the hash)."""

_SECRET = {"secret", "url", "metrics_token", "sentinel_password"}
"""Names whose values are never printed (a Redis URL may hold a password)."""


class Section(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    def __rich_repr__(self) -> list[tuple[str, Any]]:
        pairs = ((name, getattr(self, name)) for name in self.__struct_fields__)
        return [(name, "***" if name in _SECRET and value else value) for name, value in pairs]

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{n}={v!r}' for n, v in self.__rich_repr__())})"


class Server(Section, frozen=True):
    """The listening socket and the process."""

    host: str = "127.0.0.1"
    port: Port = 8000
    workers: Positive = 1
    """Processes on one port; more than one needs the Redis engine."""
    loop: Literal["uvloop", "asyncio"] = "uvloop"
    backlog: Positive = 4096
    trusted_proxies: tuple[str, ...] = ("127.0.0.1", "::1")
    """Addresses or networks whose X-Forwarded-For and X-Forwarded-Proto are believed."""
    header_deadline_s: Seconds = 10.0
    """From the first byte of a connection to the end of the request header."""
    max_header_bytes: Positive = 16_384
    body_deadline_s: Seconds = 10.0
    max_body_bytes: Positive = 65_536
    max_batch_bytes: Positive = 4 * 1024 * 1024
    keep_alive_s: Positive = 75
    metrics_token: str = ""
    """Bearer token /metrics asks for; "": none."""
    drain_s: Seconds = 10.0
    """How long SIGTERM takes to send all clients away in paced batches."""
    dev: bool = False
    """Trying out: demo tokens, test page, open statistics. Set by `serve --dev`."""
    console: bool = False
    """Serve /console also without `--dev`: static files, which show and do what a visitor's token allows."""

    def __post_init__(self) -> None:
        for name in self.trusted_proxies:
            try:
                name == "*" or ip_network(name)
            except ValueError:
                # It would trust nobody, and all clients would share the proxy's address and its limits.
                raise ValueError(f"trusted_proxies: {name!r} is no IP address or network") from None


class Bus(Section, frozen=True):
    """The event bus: engine, history, recovery."""

    engine: Engine | None = None
    """None: `redis` where a Redis URL or sentinels are set, else `sqlite`."""
    data_dir: str = "data"
    """Directory of the embedded engine (bus.db, state.db); one server per directory."""
    history_entries: Positive = 1_000
    """Per channel."""
    history_s: Positive = 86_400
    idempotency_s: Annotated[int, Meta(ge=60)] = 300
    """How long ids and idempotency keys are remembered."""
    recovery_page_entries: Annotated[int, Meta(ge=1, le=10_000)] = 500
    probe_interval_s: Seconds = 5.0
    max_held_bytes: Positive = 4 * 1024 * 1024
    """Per tenant, while a doubt about the live path is cleared."""


class Redis(Section, frozen=True):
    """Connection to Redis; used by the `redis` engine only."""

    url: str = ""
    """redis://, rediss:// or unix://; may hold user and password."""
    sentinels: tuple[Place, ...] = ()
    """host:port of each sentinel; of `url` only user, password, database and TLS count then."""
    service: str = "mymaster"
    """The name under which the sentinels watch the master."""
    sentinel_username: str = ""
    sentinel_password: str = ""
    """Of the sentinels themselves; "": they ask for none."""
    pool_connections: Annotated[int, Meta(ge=1, le=64)] = 8
    """For shared state, per process, opened when needed; appends, reads and subscriptions: one more each."""
    connect_timeout_s: Seconds = 5.0
    command_timeout_s: Seconds = 5.0
    key_prefix: Annotated[str, Meta(pattern=r"^[A-Za-z0-9_.-]{1,32}$")] = "dualcast"

    def __post_init__(self) -> None:
        if self.url and not self.url.startswith(("redis://", "rediss://", "unix://")):
            raise ValueError("url starts with redis://, rediss:// or unix://")
        try:
            parts = urlsplit(self.url)
            sound = parts.port != 0 and (
                parts.scheme == "unix" or not parts.path.strip("/").lstrip("0123456789")
            )
        except ValueError:
            sound = False
        if not sound:
            # Nothing of the url: what looks like a port may be half a password.
            raise ValueError(
                "url is redis://[user:password@]host[:port][/database number], special characters as %XX"
            )
        ports = [place.rpartition(":")[2] for place in self.sentinels]
        if any(port.isdigit() and int(port) > 65_535 for port in ports):
            raise ValueError("sentinels are host:port")
        if self.sentinels and self.url.startswith("unix://"):
            raise ValueError("sentinels name hosts: url cannot be a unix socket")

    @property
    def configured(self) -> bool:
        """Whether it is said where Redis is."""
        return bool(self.url or self.sentinels)


class Key(Section, frozen=True):
    """One key that tokens may be signed with. Its algorithm is fixed: a token cannot choose another."""

    id: str = ""
    """Matches the token's `kid`; "": for tokens without one."""
    algorithm: Algorithm = "HS256"
    secret: str = ""
    """HS256 only."""
    public_key_file: str = ""
    """PEM; the other algorithms."""
    private_key_file: str = ""
    """PEM; only needed where `dualcast token` signs."""
    tenant: str = ""
    """A key verifies tokens of one tenant; "": the legacy tenant."""

    def __post_init__(self) -> None:
        if (self.algorithm == "HS256") != bool(self.secret):
            raise ValueError("HS256 needs secret; other algorithms need public_key_file and no secret")
        if self.algorithm != "HS256" and not self.public_key_file:
            raise ValueError(f"{self.algorithm} needs public_key_file")


class Identity(Section, frozen=True):
    """Who may come in: keys, claims, cookies, tickets, origins."""

    keys: tuple[Key, ...] = ()
    """The names in `SECRETS` add HS256 keys in front. `dualcast token` signs with the first key that can."""
    allow_short_secrets: bool = False
    """Accept HS256 keys shorter than 32 bytes (an older system's key, until it is replaced)."""
    issuer: str = ""
    """Required `iss`; "": not checked."""
    audience: str = ""
    """Required `aud`; "": not checked."""
    leeway_s: Annotated[int, Meta(ge=0, le=300)] = 30
    """Clock difference allowed on `exp`, `nbf`, `iat`."""
    jwks_url: str = ""
    """https only."""
    jwks_cache_s: Seconds = 300.0
    cookie: str = "dualcast_token"
    """Name of the cookie accepted on native routes with an allowed Origin; "": none."""
    ticket_s: Annotated[float, Meta(gt=0, le=300)] = 30.0
    origins: tuple[str, ...] = ()
    """`Origin` values of other sites allowed in (CORS, native WebSocket); the server's own always is."""

    def __post_init__(self) -> None:
        short = [k for k in self.keys if k.secret and len(k.secret.encode()) < MIN_SECRET_BYTES]
        if short and not self.allow_short_secrets:
            raise ValueError(
                f"an HS256 secret has at least {MIN_SECRET_BYTES} bytes (see allow_short_secrets)"
            )
        if self.jwks_url and not self.jwks_url.startswith("https://"):
            raise ValueError("jwks_url starts with https://")


class Tenancy(Section, frozen=True):
    """Tenants this server has before anybody configures one."""

    legacy_tenant: str = "default"
    """Owner of tokens without a `tenant` claim."""
    file: str = ""
    """TOML or JSON file of tenants, read at start; "": only what the store holds."""
    public_channels: tuple[str, ...] = ()
    """Patterns every authenticated user may subscribe to (`topic:news-*`). Default: deny."""
    stage: Literal["sse", "shadow", "fallback", "websocket"] = "fallback"
    """Stage of a new tenant."""
    operator_tenant: str = ""
    """Whose tokens with the role `operator` may do everything to every tenant; "": the legacy tenant's."""

    def __post_init__(self) -> None:
        try:
            check_tenant(self.legacy_tenant)
            if self.operator_tenant:
                check_tenant(self.operator_tenant)
        except DualcastError as error:
            raise ValueError(error.reason) from None


class Delivery(Section, frozen=True):
    """Sessions on both transports."""

    sse_heartbeat_s: Heartbeat = 15
    ws_heartbeat_s: Heartbeat = 25
    dead_after_s: Positive = 10
    """After an unanswered WebSocket ping."""
    lag_limit_s: Seconds = 30.0
    """A session behind for longer is closed (4200) and resumes by cursor."""
    move_spread_s: Annotated[float, Meta(ge=0)] = 30.0
    """Sessions that a changed migration stage moves are asked to move over so long."""
    move_grace_s: Annotated[float, Meta(ge=0)] = 5.0
    """Who has not moved so long after its time is ended."""
    retry_min_ms: Annotated[int, Meta(ge=100)] = 1_000
    retry_max_ms: Annotated[int, Meta(ge=100)] = 4_000
    """Reconnect delays told to clients lie between the two."""
    compression: bool = False
    """permessage-deflate for clients that ask for it (docs/decisions/0008)."""
    ring_entries: Positive = 256
    """Recent publications kept per watched channel and process: a short reconnect need not read the bus."""
    ring_bytes: Positive = 64 * 1024 * 1024
    """Of all channels of one process."""


class Limits(Section, frozen=True):
    """Bounds per client. 0 switches a rate, or a limit per user or address, off."""

    max_frame_bytes: Positive = 65_536
    """One inbound WebSocket message."""
    channels_per_session: Positive = 128
    connections_per_user: Count = 20
    """Native connections; the newest wins."""
    connections_per_ip: Count = 200
    """Not for loopback and trusted proxies."""
    connections: Positive = 100_000
    """Of one process."""
    handshakes_per_ip_per_s: Count = 50
    requests_per_ip_per_s: Count = 0
    requests_per_principal_per_s: Count = 0
    batch_items: Positive = 1_000
    publishes_per_tenant_per_s: Count = 0
    """Quota enforced inside the append, over all nodes."""
    waiting_per_tenant: Positive = 50_000
    """Publications of one tenant that may wait in one process for their turn at the bus; beyond: 429
    `tenant-busy`."""
    waiting_bytes: Positive = 64 * 1024 * 1024
    """The same in bytes of request bodies."""
    burst_s: Seconds = 4.0
    """Every rate allows this many seconds' worth at once."""


class Log(Section, frozen=True):
    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["auto", "json", "console"] = "auto"
    """auto: console on a terminal, else JSON lines."""


class Inbox(Section, frozen=True):
    """Stored notifications."""

    max_items: Annotated[int, Meta(ge=1, le=100_000)] = 1_000
    """Newest kept per user, and of those for the whole tenant."""
    max_age_s: Positive = 90 * 86_400


class Presence(Section, frozen=True):
    """Who is online, over all nodes."""

    lease_s: Annotated[float, Meta(ge=3, le=3600)] = 30.0
    """A dead node's users are offline after this at the latest."""


class Push(Section, frozen=True):
    """Device pushes for those who are away."""

    provider: str = "log"
    """`none`, `log`, `webhook`, or an installed plug-in's name (entry point `dualcast.push_providers`). One
    that is unknown or cannot work stops the start."""
    when: Literal["never", "offline"] | None = None
    """For notifications that do not say. None: `offline`, but `never` with the providers `log` and `none`."""
    url: str = ""
    """Of the webhook."""
    secret: str = ""
    """Signs the webhook's requests; at least 32 bytes."""
    allow_http: bool = False
    """A webhook without TLS on another host than this one."""
    options: tuple[str, ...] = ()
    """`name=value`, handed to a plug-in."""
    timeout_s: Seconds = 10.0
    """Of one attempt."""
    concurrency: Annotated[int, Meta(ge=1, le=256)] = 8
    """Attempts at once, per process."""
    max_attempts: Positive = 25
    backoff_min_s: Seconds = 1.0
    backoff_max_s: Seconds = 300.0
    deadline_s: Positive = 3_600
    """After this a push is not tried any more."""
    max_queued: Positive = 100_000
    """Per tenant; what comes beyond goes to the dead letters."""

    def __post_init__(self) -> None:
        if self.secret and len(self.secret.encode()) < MIN_SECRET_BYTES:
            raise ValueError(f"a push secret has at least {MIN_SECRET_BYTES} bytes")


class Tasks(Section, frozen=True):
    """Tasks and batches."""

    finished_s: Positive = 7 * 86_400
    """A finished task is kept so long."""
    unfinished_s: Positive = 30 * 86_400
    """One nobody reports on is forgotten after this."""
    max_per_batch: Annotated[int, Meta(ge=1, le=100_000)] = 10_000


class Conversations(Section, frozen=True):
    """Stored conversations."""

    max_messages: Annotated[int, Meta(ge=1, le=1_000_000)] = 10_000
    """Newest kept per conversation."""
    messages_per_user_per_s: Annotated[float, Meta(ge=0)] = 10.0
    """By participants; 0: no limit."""
    signals_per_user_per_s: Annotated[float, Meta(ge=0)] = 10.0
    """Typing and read; 0: no limit."""
    max_age_s: Positive = 365 * 86_400


class Legacy(Section, frozen=True):
    """The five older contracts (docs/contracts/legacy-wire.md, section 9, where their own names stand)."""

    dialects: tuple[str, ...] = ("notifications", "rooms", "topics", "conversations", "progress")
    """Contracts that are served; an installed one by the name of its entry point `dualcast.dialects`."""
    ws_heartbeat_s: Seconds | None = None
    """Of the server, and told to conversations clients. None: 30 s and 45 s. `WS_HEARTBEAT_INTERVAL` is in
    milliseconds from 1000 on, below in seconds."""
    connections_per_user: Count = 0
    """Per stream of the contract; the newest wins. 0: no limit."""
    connect_timeout_ms: Positive = 20_000
    """Told to conversations clients."""
    reconnect_attempts: Count = 15
    """Told to conversations clients."""
    task_heartbeat_s: Seconds = 10.0
    task_idle_s: Seconds = 300.0
    """A task stream without progress for so long ends."""
    batch_poll_s: Seconds = 2.0
    """How often batches of the older queue are read again."""
    batch_idle_s: Seconds = 600.0
    progress_ping_s: Seconds = 30.0
    progress_connections: Count = 0
    """Of the progress contract, per process. 0: the server's own limit."""
    topics_idle_s: Annotated[float, Meta(ge=0)] = 90.0
    """A topics socket that says nothing for so long is closed. 0: off. Clients ping every 30 s; less than
    that is noted at the start."""
    topics_public: tuple[str, ...] = ()
    """Topics that anonymous connections may subscribe to."""
    stats_public: bool = False
    """Statistics without an admin token."""
    stream_ids: bool = True
    """`id:` lines on streams, so that a browser resumes by itself."""
    cut_on_expiry: bool = False
    """A connection ends when its token expires."""
    mirror: Literal["off", "fallback", "always"] = "off"
    """Publish to the old Redis channels as well; `fallback`: while the user has no live socket here. Needs
    `redis` below."""
    redis: bool = True
    """With Redis: take in what older backends publish, and keep their names in step."""
    test_page: bool = False
    """Serve /websocket-test also without `--dev`."""
