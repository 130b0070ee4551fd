"""Every setting of the server, and the only place that reads the environment.

In: defaults < TOML file (`--config`, `DUALCAST_CONFIG`) < environment < command line. Out: frozen `Settings`,
and where each value came from. Must not: open a socket, know a room (`dualcast.app` maps sections to rooms).

Environment: `DUALCAST_<SECTION>__<NAME>` (`DUALCAST_SERVER__DRAIN_S=30`), the names in `SHORT` and `SECRETS`,
and those of older deployments. A list is comma-separated or JSON. A name nobody knows is an error with a
suggestion: a typing mistake in a limit must not go unnoticed.
"""

from __future__ import annotations

import difflib
import os
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints
from urllib.parse import quote

import msgspec
from msgspec import Meta, Struct, field

from dualcast.model.channel import check_tenant
from dualcast.model.errors import DualcastError

Engine = Literal["sqlite", "redis", "memory"]
Algorithm = Literal["HS256", "RS256", "ES256", "EdDSA"]
Port = Annotated[int, Meta(ge=0, le=65_535)]
Count = Annotated[int, Meta(ge=0)]
Positive = Annotated[int, Meta(ge=1)]
Seconds = Annotated[float, Meta(gt=0)]

MIN_SECRET_BYTES = 32
"""Shortest HS256 key (RFC 7518 section 3.2: at least as long as the hash)."""

_SECRET = {"secret", "url", "metrics_token"}
"""Names whose values are never printed (a Redis URL may hold a password)."""


class SettingsError(DualcastError):
    """The configuration is wrong; `reason` says which name, where it came from and what is expected."""

    code = "settings"


class _Section(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    def __rich_repr__(self) -> list[tuple[str, Any]]:
        pairs = ((name, getattr(self, name)) for name in self.__struct_fields__)
        return [(name, "***" if name in _SECRET and value else value) for name, value in pairs]

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{n}={v!r}' for n, v in self.__rich_repr__())})"


class Server(_Section, frozen=True):
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


class Bus(_Section, frozen=True):
    """The event bus: engine, history, recovery."""

    engine: Engine | None = None
    """None: `redis` where a Redis URL is set, else `sqlite`."""
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


class Redis(_Section, frozen=True):
    """Connection to Redis; used by the `redis` engine only."""

    url: str = ""
    """redis://, rediss:// or unix://; may hold user and password."""
    pool_connections: Annotated[int, Meta(ge=1, le=64)] = 8
    """For shared state, per process, opened when needed; appends, reads and subscriptions: one more each."""
    connect_timeout_s: Seconds = 5.0
    command_timeout_s: Seconds = 5.0
    key_prefix: Annotated[str, Meta(pattern=r"^[A-Za-z0-9_.-]{1,32}$")] = "dualcast"

    def __post_init__(self) -> None:
        if self.url and not self.url.startswith(("redis://", "rediss://", "unix://")):
            raise ValueError("url starts with redis://, rediss:// or unix://")


class Key(_Section, frozen=True):
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


class Identity(_Section, frozen=True):
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


class Tenancy(_Section, frozen=True):
    """Tenants this server has before anybody configures one."""

    legacy_tenant: str = "default"
    """Owner of tokens without a `tenant` claim."""
    file: str = ""
    """TOML or JSON file of tenants, read at start; "": only what the store holds."""
    public_channels: tuple[str, ...] = ()
    """Patterns every authenticated user may subscribe to (`topic:news-*`). Default: deny."""
    stage: Literal["sse", "shadow", "fallback", "websocket"] = "fallback"
    """Stage of a new tenant."""

    def __post_init__(self) -> None:
        try:
            check_tenant(self.legacy_tenant)
        except DualcastError as error:
            raise ValueError(error.reason) from None


class Delivery(_Section, frozen=True):
    """Sessions on both transports."""

    sse_heartbeat_s: Positive = 15
    ws_heartbeat_s: Positive = 25
    dead_after_s: Positive = 10
    """After an unanswered WebSocket ping."""
    lag_limit_s: Seconds = 30.0
    """A session behind for longer is closed (4200) and resumes by cursor."""
    retry_min_ms: Annotated[int, Meta(ge=100)] = 1_000
    retry_max_ms: Annotated[int, Meta(ge=100)] = 4_000
    """Reconnect delays told to clients lie between the two."""
    compression: bool = False
    """permessage-deflate for clients that ask for it (docs/decisions/0008)."""
    ring_entries: Positive = 256
    """Recent publications kept per watched channel and process: a short reconnect need not read the bus."""
    ring_bytes: Positive = 64 * 1024 * 1024
    """Of all channels of one process."""


class Limits(_Section, frozen=True):
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
    burst_s: Seconds = 4.0
    """Every rate allows this many seconds' worth at once."""


class Log(_Section, frozen=True):
    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["auto", "json", "console"] = "auto"
    """auto: console on a terminal, else JSON lines."""


class Settings(_Section, frozen=True):
    """Everything. `engine` resolves the default of `bus.engine`."""

    server: Server = field(default_factory=Server)
    bus: Bus = field(default_factory=Bus)
    redis: Redis = field(default_factory=Redis)
    identity: Identity = field(default_factory=Identity)
    tenancy: Tenancy = field(default_factory=Tenancy)
    delivery: Delivery = field(default_factory=Delivery)
    limits: Limits = field(default_factory=Limits)
    log: Log = field(default_factory=Log)

    def __post_init__(self) -> None:
        if self.engine == "redis" and not self.redis.url:
            raise ValueError("engine redis needs redis.url (DUALCAST_REDIS_URL)")
        if self.engine != "redis" and self.server.workers > 1:
            raise ValueError(f"engine {self.engine} lives in one process: server.workers must be 1")

    @property
    def engine(self) -> Engine:
        return self.bus.engine or ("redis" if self.redis.url else "sqlite")


class Loaded(Struct, frozen=True):
    """Settings and, by dotted name, where each value that is not a default came from."""

    settings: Settings
    sources: dict[str, str]


SECTIONS: dict[str, type[_Section]] = {
    name: hint for name, hint in get_type_hints(Settings).items() if name in Settings.__struct_fields__
}
_KNOWN = {f"{section}.{name}" for section, type_ in SECTIONS.items() for name in type_.__struct_fields__}
SHORT = {
    "DUALCAST_HOST": "server.host",
    "DUALCAST_PORT": "server.port",
    "DUALCAST_WORKERS": "server.workers",
    "DUALCAST_ENGINE": "bus.engine",
    "DUALCAST_DATA_DIR": "bus.data_dir",
    "DUALCAST_REDIS_URL": "redis.url",
    "DUALCAST_ORIGINS": "identity.origins",
    "DUALCAST_LOG_LEVEL": "log.level",
    "REDIS_URL": "redis.url",
    "CORS_ORIGINS": "identity.origins",
}
"""Short and older environment names. Where two set the same value, the DUALCAST one wins."""
SECRETS = ("DUALCAST_JWT_SECRET", "JWT_SECRET", "SECRET_KEY")
"""Names that each add an HS256 key of the legacy tenant, in signing order."""
_OTHER = {"DUALCAST_CONFIG", "DUALCAST_URL", "DUALCAST_TOKEN", *SECRETS}


def load(
    config: str | Path | None = None,
    *,
    environ: Mapping[str, str] | None = None,
    overrides: Mapping[str, object] | None = None,
) -> Loaded:
    """Reads file and environment; `overrides` are dotted names. Raises SettingsError."""
    env = os.environ if environ is None else environ
    raw: dict[str, dict[str, Any]] = {}
    sources: dict[str, str] = {}

    def put(path: str, value: object, source: str) -> None:
        section, _, name = path.partition(".")
        raw.setdefault(section, {})[name] = value
        sources[path] = source

    path = str(config or env.get("DUALCAST_CONFIG", ""))
    for name, value in _read_file(path) if path else ():
        put(name, value, path)
    for name, value, source in _read_environment(env):
        put(name, value, source)
    for name, given in (overrides or {}).items():
        put(name, given, "command line")
    _add_secrets(env, raw, sources)
    try:
        settings = msgspec.convert(raw, Settings, strict=False)
    except msgspec.ValidationError as error:
        raise SettingsError(_explain(str(error), sources)) from None
    return Loaded(settings, sources)


def _read_file(path: str) -> Iterator[tuple[str, object]]:
    try:
        document = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise SettingsError(f"{path}: {error.strerror or 'cannot be read'}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path} is not TOML: {error}") from None
    for section, values in document.items():
        if section not in SECTIONS or not isinstance(values, dict):
            raise SettingsError(f"{path}: no section [{section}]{_suggest(section, SECTIONS)}")
        for name, value in values.items():
            full = f"{section}.{name}"
            if full not in _KNOWN:
                raise SettingsError(f"{path}: no setting {full}{_suggest(full, _KNOWN)}")
            yield full, value


def _read_environment(env: Mapping[str, str]) -> Iterator[tuple[str, object, str]]:
    names = {"DUALCAST_" + path.upper().replace(".", "__"): path for path in _KNOWN}
    if host := env.get("REDIS_HOST"):
        password = f":{quote(env['REDIS_PASSWORD'], safe='')}@" if env.get("REDIS_PASSWORD") else ""
        url = f"redis://{password}{host}:{env.get('REDIS_PORT') or 6379}/{env.get('REDIS_DB') or 0}"
        yield "redis.url", url, "REDIS_HOST"
    # Older names first, so that a DUALCAST name beside them wins.
    for name in sorted(env, key=lambda name: (name.startswith("DUALCAST_"), "__" in name, name)):
        path = names.get(name) or SHORT.get(name)
        if path is None:
            if name.startswith("DUALCAST_") and name not in _OTHER:
                raise SettingsError(f"no setting {name}{_suggest(name, [*names, *SHORT, *_OTHER])}")
        elif env[name] != "":
            yield path, _from_text(path, env[name], name), name


def _from_text(path: str, text: str, source: str) -> object:
    section, _, name = path.partition(".")
    hint = get_type_hints(SECTIONS[section])[name]
    if get_origin(hint) is not tuple:
        return text
    if text.lstrip().startswith("["):
        try:
            return msgspec.json.decode(text)
        except msgspec.DecodeError:
            raise SettingsError(f"{source} is not a JSON list") from None
    if get_args(hint)[0] is not str:
        raise SettingsError(f"{source} must be a JSON list")
    return [part.strip() for part in text.split(",") if part.strip()]


def _add_secrets(env: Mapping[str, str], raw: dict[str, dict[str, Any]], sources: dict[str, str]) -> None:
    keys = []
    for name in SECRETS:
        if secret := env.get(name):
            keys.append({"secret": secret})
            sources["identity.keys"] = ", ".join(filter(None, [sources.get("identity.keys"), name]))
    if keys:
        identity = raw.setdefault("identity", {})
        listed = identity.get("keys", [])
        identity["keys"] = [*keys, *listed] if isinstance(listed, list) else listed


def _suggest(name: str, known: object) -> str:
    close = difflib.get_close_matches(name, list(known), n=1, cutoff=0.6)  # type: ignore[call-overload]
    return f"; did you mean {close[0]}?" if close else ""


def _explain(message: str, sources: Mapping[str, str]) -> str:
    what, _, where = message.partition(" - at `$")
    path = where.strip("`.")
    source = next((text for name, text in sources.items() if path.startswith(name)), "")
    prefix = f"{path} ({source}): " if source else f"{path}: " if path else ""
    return prefix + what
