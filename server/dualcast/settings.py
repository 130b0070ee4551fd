"""Every setting of the server, and the only place that reads the environment.

In: defaults < TOML file (`--config`, `DUALCAST_CONFIG`) < environment < command line. Out: frozen `Settings`,
and where each value came from. Must not: open a socket, know a room (`dualcast.app` maps sections to rooms).

Environment: `DUALCAST_<SECTION>__<NAME>` (`DUALCAST_SERVER__DRAIN_S=30`), the names in `SHORT` and `SECRETS`,
and those of older deployments. A list is comma-separated or JSON. A name nobody knows is an error with a
suggestion: a typing mistake in a limit must not go unnoticed.
"""

from __future__ import annotations

import difflib
import math
import os
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints
from urllib.parse import quote

import msgspec
from msgspec import Struct, field

from dualcast.model.errors import DualcastError
from dualcast.sections import (
    Bus,
    Conversations,
    Delivery,
    Engine,
    Identity,
    Inbox,
    Legacy,
    Limits,
    Log,
    Presence,
    Push,
    Redis,
    Section,
    Server,
    Tasks,
    Tenancy,
)


class SettingsError(DualcastError):
    """The configuration is wrong; `reason` says which name, where it came from and what is expected."""

    code = "settings"


class Settings(Section, frozen=True):
    """Everything. `engine` resolves the default of `bus.engine`."""

    server: Server = field(default_factory=Server)
    bus: Bus = field(default_factory=Bus)
    redis: Redis = field(default_factory=Redis)
    identity: Identity = field(default_factory=Identity)
    tenancy: Tenancy = field(default_factory=Tenancy)
    delivery: Delivery = field(default_factory=Delivery)
    limits: Limits = field(default_factory=Limits)
    inbox: Inbox = field(default_factory=Inbox)
    presence: Presence = field(default_factory=Presence)
    push: Push = field(default_factory=Push)
    tasks: Tasks = field(default_factory=Tasks)
    conversations: Conversations = field(default_factory=Conversations)
    legacy: Legacy = field(default_factory=Legacy)
    log: Log = field(default_factory=Log)

    def __post_init__(self) -> None:
        if self.engine == "redis" and not self.redis.configured:
            raise ValueError("engine redis needs redis.url (DUALCAST_REDIS_URL) or redis.sentinels")
        if self.engine != "redis" and self.server.workers > 1:
            raise ValueError(f"engine {self.engine} lives in one process: server.workers must be 1")
        if self.legacy.mirror != "off" and not (self.engine == "redis" and self.legacy.redis):
            # It would copy nothing, and clients of old servers would go without a word.
            raise ValueError(f"legacy.mirror = {self.legacy.mirror} needs engine redis and legacy.redis on")

    @property
    def engine(self) -> Engine:
        return self.bus.engine or ("redis" if self.redis.configured else "sqlite")


class Loaded(Struct, frozen=True):
    """Settings and, by dotted name, where each value that is not a default came from."""

    settings: Settings
    sources: dict[str, str]
    notes: tuple[str, ...] = ()
    """What an operator should know of the environment."""


SECTIONS: dict[str, type[Section]] = {
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
    "NOTIFICATION_PROVIDER": "push.provider",
    "CORS_ORIGINS": "identity.origins",
    "LEGACY_CUT_ON_EXPIRY": "legacy.cut_on_expiry",
    "LEGACY_MIRROR": "legacy.mirror",
    "LEGACY_REDIS": "legacy.redis",
    "LEGACY_SHORT_KEYS": "identity.allow_short_secrets",
    "LEGACY_STATS_PUBLIC": "legacy.stats_public",
    "LEGACY_STREAM_IDS": "legacy.stream_ids",
    "LEGACY_TENANT": "tenancy.legacy_tenant",
    "SSE_BATCH_MAX_IDLE_SECONDS": "legacy.batch_idle_s",
    "SSE_BATCH_POLL_INTERVAL_SECONDS": "legacy.batch_poll_s",
    "SSE_HEARTBEAT_INTERVAL_SECONDS": "legacy.task_heartbeat_s",
    "SSE_TASK_MAX_IDLE_SECONDS": "legacy.task_idle_s",
    "TEST_PAGE": "legacy.test_page",
    "TOPICS_PUBLIC": "legacy.topics_public",
    "WEBSOCKET_MAX_CONNECTIONS": "legacy.progress_connections",
    "WEBSOCKET_PING_INTERVAL": "legacy.progress_ping_s",
    "WS_CONNECTION_TIMEOUT": "legacy.connect_timeout_ms",
    "WS_HEARTBEAT_INTERVAL": "legacy.ws_heartbeat_s",
    "WS_IDLE_TIMEOUT": "legacy.topics_idle_s",
    "WS_MAX_CONNECTIONS_PER_USER": "legacy.connections_per_user",
    "WS_MAX_RECONNECT_ATTEMPTS": "legacy.reconnect_attempts",
}
"""Short and older environment names. Where two set the same value, the DUALCAST one wins."""
SECRETS = ("DUALCAST_JWT_SECRET", "JWT_SECRET", "SECRET_KEY")
"""Names that each add an HS256 key of the legacy tenant, in signing order."""
PLUG_IN = {"FIREBASE_CREDENTIALS_PATH": "credentials_path", "FIREBASE_PROJECT_ID": "project_id"}
"""Names handed on to the push provider as options."""
WITHOUT_EFFECT = {
    "DATABASE_URL": "it belongs to the applications behind dualcast",
    "SSE_POLL_TIMEOUT_SECONDS": "streams do not poll",
}
"""Names of older deployments that are accepted and noted."""
TOPICS_PING_S = 30
"""How often clients of the contract `topics` say something (section 5.6)."""
_SWITCH = {"on": True, "off": False, "yes": True, "no": False}
"""Words for a bool beside `true`, `false`, `1`, `0`: the contract says `legacy_stream_ids = off`."""
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
    _check_finite(settings, sources)
    notes = [f"{name} has no effect: {why}" for name, why in WITHOUT_EFFECT.items() if env.get(name)]
    if 0 < settings.legacy.topics_idle_s <= TOPICS_PING_S:
        notes.append(
            f"legacy.topics_idle_s closes healthy clients: topics clients ping every {TOPICS_PING_S} s"
        )
    return Loaded(settings, sources, tuple(notes))


def _check_finite(settings: Settings, sources: Mapping[str, str]) -> None:
    """No number of the settings may be infinite: TOML and `float` know such, clocks and JSON do not."""
    for path, source in sources.items():
        section, _, name = path.partition(".")
        value = getattr(getattr(settings, section), name)
        if isinstance(value, float) and not math.isfinite(value):
            raise SettingsError(f"{path} ({source}): Expected a finite number")


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
    options = [f"{option}={env[name]}" for name, option in PLUG_IN.items() if env.get(name)]
    if options:
        yield "push.options", options, ", ".join(name for name in PLUG_IN if env.get(name))
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
    if source == "WS_HEARTBEAT_INTERVAL":
        return _interval_s(text, source)
    if hint is bool:
        return _SWITCH.get(text.strip().lower(), text)
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


def _interval_s(text: str, source: str) -> float:
    """Seconds; from 1000 on the value is in milliseconds (contract section 2)."""
    try:
        value = float(text)
    except ValueError:
        raise SettingsError(f"{source} must be a number") from None
    return value / 1000 if value >= 1000 else value


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
    if what.startswith("Invalid enum value "):
        what = f"{what.removeprefix('Invalid enum value ')} is none of {', '.join(_choices(path))}"
    return prefix + what


def _choices(path: str) -> list[str]:
    """The words the setting at `path` takes, below `keys[…]` as well."""
    hint: Any = Settings
    for name in path.split("."):
        hint = get_type_hints(hint)[name.partition("[")[0]]
        hint = get_args(hint)[0] if get_origin(hint) is tuple else hint
    found = (word for each in (hint, *get_args(hint)) for word in get_args(each) or (each,))
    return list(dict.fromkeys(word for word in found if isinstance(word, str)))
