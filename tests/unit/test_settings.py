"""Settings: precedence, units, refusals with suggestions, secrets kept out of every text."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from dualcast.settings import (
    PLUG_IN,
    SECRETS,
    SECTIONS,
    SHORT,
    WITHOUT_EFFECT,
    Loaded,
    Settings,
    SettingsError,
    load,
)

SECRET = "s" * 32


def write(folder: Path, text: str) -> Path:
    file = folder / "dualcast.toml"
    file.write_text(text)
    return file


def refused(environ: dict[str, str] | None = None, config: Path | None = None) -> str:
    with pytest.raises(SettingsError) as caught:
        load(config, environ=environ or {})
    return caught.value.reason


def test_defaults_are_those_of_the_documentation() -> None:
    settings = load(environ={}).settings
    assert settings == Settings()
    assert settings.engine == "sqlite"
    assert settings.server.max_body_bytes == settings.limits.max_frame_bytes == 64 * 1024
    assert settings.limits.channels_per_session == 128
    assert (settings.limits.connections_per_user, settings.limits.connections_per_ip) == (20, 200)
    assert (settings.server.header_deadline_s, settings.server.max_header_bytes) == (10, 16 * 1024)
    assert (settings.bus.history_entries, settings.bus.history_s) == (1_000, 24 * 3600)
    assert settings.bus.recovery_page_entries == 500
    assert (settings.delivery.sse_heartbeat_s, settings.delivery.ws_heartbeat_s) == (15, 25)
    assert (settings.delivery.dead_after_s, settings.delivery.lag_limit_s) == (10, 30)
    assert settings.server.drain_s == 10
    assert settings.redis.pool_connections == 8
    assert not settings.delivery.compression and not settings.server.dev and not settings.identity.keys


def test_command_line_beats_environment_beats_file(tmp_path: Path) -> None:
    file = write(tmp_path, '[server]\nport = 1\nhost = "file"\ndrain_s = 3\n')
    loaded = load(
        file,
        environ={"DUALCAST_SERVER__HOST": "environment", "DUALCAST_PORT": "2"},
        overrides={"server.port": 3},
    )
    assert (loaded.settings.server.port, loaded.settings.server.host) == (3, "environment")
    assert loaded.settings.server.drain_s == 3
    assert loaded.sources == {
        "server.port": "command line",
        "server.host": "DUALCAST_SERVER__HOST",
        "server.drain_s": str(file),
    }


def test_the_file_may_be_named_by_the_environment(tmp_path: Path) -> None:
    file = write(tmp_path, "[delivery]\nlag_limit_s = 5\n")
    assert load(environ={"DUALCAST_CONFIG": str(file)}).settings.delivery.lag_limit_s == 5


def test_a_list_is_comma_separated_or_json() -> None:
    for text in ("https://a.example, https://b.example", '["https://a.example","https://b.example"]'):
        assert load(environ={"DUALCAST_ORIGINS": text}).settings.identity.origins == (
            "https://a.example",
            "https://b.example",
        )
    assert "JSON" in refused({"DUALCAST_ORIGINS": "[https://a.example"})
    assert "JSON" in refused({"DUALCAST_IDENTITY__KEYS": "secret"})


@pytest.mark.parametrize("text", ["true", "1"])
def test_switches_are_read_from_text(text: str) -> None:
    assert load(environ={"DUALCAST_SERVER__DEV": text}).settings.server.dev is True


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({"DUALCAST_SERVER__PROT": "1"}, "did you mean DUALCAST_SERVER__PORT?"),
        ({"DUALCAST_JWT_SECRT": "x"}, "did you mean DUALCAST_JWT_SECRET?"),
        ({"DUALCAST_SERVER__PORT": "many"}, "server.port (DUALCAST_SERVER__PORT): Expected `int`"),
        ({"DUALCAST_PORT": "70000"}, "server.port (DUALCAST_PORT)"),
        ({"DUALCAST_ENGINE": "kafka"}, "bus.engine (DUALCAST_ENGINE)"),
        ({"DUALCAST_BUS__IDEMPOTENCY_S": "30"}, "bus.idempotency_s"),
        ({"DUALCAST_DELIVERY__SSE_HEARTBEAT_S": "4"}, "delivery.sse_heartbeat_s"),
        ({"DUALCAST_DELIVERY__WS_HEARTBEAT_S": "1"}, "delivery.ws_heartbeat_s"),
        ({"DUALCAST_ENGINE": "redis"}, "redis.url"),
        ({"DUALCAST_WORKERS": "2"}, "server.workers must be 1"),
        ({"DUALCAST_REDIS_URL": "http://localhost"}, "redis://"),
        ({"DUALCAST_IDENTITY__JWKS_URL": "http://keys.example"}, "https://"),
        ({"DUALCAST_TENANCY__LEGACY_TENANT": "No Good"}, "tenant id"),
        ({"DUALCAST_IDENTITY__KEYS": '[{"algorithm":"ES256"}]'}, "public_key_file"),
        ({"DUALCAST_IDENTITY__KEYS": '[{"algorithm":"none"}]'}, "identity.keys"),
        ({"JWT_SECRET": "short"}, "at least 32 bytes"),
    ],
)
def test_wrong_values_are_refused_by_name(environ: dict[str, str], expected: str) -> None:
    assert expected in refused(environ)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[srever]\nport = 1\n", "did you mean server?"),
        ("[limits]\nconnection_per_user = 1\n", "did you mean limits.connections_per_user?"),
        ("port = 1\n", "no section [port]"),
        ("[server\n", "is not TOML"),
    ],
)
def test_wrong_files_are_refused(tmp_path: Path, text: str, expected: str) -> None:
    assert expected in refused(config=write(tmp_path, text))


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    assert "No such file" in refused(config=tmp_path / "missing.toml")


def test_variables_of_other_programs_are_ignored() -> None:
    assert load(environ={"HOME": "/", "PORT": "1", "DUALCASTX": "1", "DUALCAST_URL": "u"}) == Loaded(
        Settings(), {}
    )


def test_an_empty_variable_counts_as_unset() -> None:
    assert load(environ={"DUALCAST_PORT": "", "REDIS_URL": "", "JWT_SECRET": ""}).settings == Settings()


@pytest.mark.parametrize(
    ("environ", "url", "engine"),
    [
        ({}, "", "sqlite"),
        ({"REDIS_URL": "redis://a"}, "redis://a", "redis"),
        ({"REDIS_URL": "redis://a", "DUALCAST_REDIS_URL": "redis://b"}, "redis://b", "redis"),
        ({"REDIS_URL": "redis://a", "DUALCAST_ENGINE": "memory"}, "redis://a", "memory"),
        ({"REDIS_HOST": "h"}, "redis://h:6379/0", "redis"),
        (
            {"REDIS_HOST": "h", "REDIS_PORT": "7", "REDIS_DB": "2", "REDIS_PASSWORD": "p@s"},
            "redis://:p%40s@h:7/2",
            "redis",
        ),
        ({"REDIS_HOST": "h", "REDIS_URL": "redis://a"}, "redis://a", "redis"),
    ],
)
def test_a_redis_address_chooses_the_redis_engine(environ: dict[str, str], url: str, engine: str) -> None:
    settings = load(environ=environ).settings
    assert (settings.redis.url, settings.engine) == (url, engine)


def test_each_key_name_adds_a_key_in_signing_order() -> None:
    loaded = load(environ={"JWT_SECRET": "a" * 32, "SECRET_KEY": "b" * 32, "DUALCAST_JWT_SECRET": "c" * 32})
    assert [key.secret[0] for key in loaded.settings.identity.keys] == ["c", "a", "b"]
    assert loaded.sources["identity.keys"] == ", ".join(SECRETS)


def test_keys_of_file_and_environment_add_up(tmp_path: Path) -> None:
    file = write(tmp_path, f'[[identity.keys]]\nid = "one"\nsecret = "{SECRET}"\n')
    keys = load(file, environ={"JWT_SECRET": "j" * 32}).settings.identity.keys
    assert [key.id for key in keys] == ["", "one"]


def test_short_secrets_have_to_be_allowed() -> None:
    environ = {"JWT_SECRET": "short", "DUALCAST_IDENTITY__ALLOW_SHORT_SECRETS": "true"}
    assert load(environ=environ).settings.identity.keys[0].secret == "short"


def test_no_secret_is_printed() -> None:
    environ = {"JWT_SECRET": SECRET, "REDIS_URL": "redis://:hidden@host"}
    settings = load(environ=environ).settings
    for text in (
        repr(settings),
        str(settings),
        str(settings.identity.keys),
        str(settings.redis.__rich_repr__()),
    ):
        assert SECRET not in text and "hidden" not in text
    for wrong in ({"JWT_SECRET": "tooshortsecret"}, {"REDIS_URL": "tooshortsecret://"}):
        assert "tooshortsecret" not in refused(wrong)


def test_short_names_point_at_settings() -> None:
    known = {f"{section}.{name}" for section, type_ in SECTIONS.items() for name in type_.__struct_fields__}
    assert set(SHORT.values()) <= known


def test_every_number_with_a_dimension_names_its_unit() -> None:
    units = ("_s", "_ms", "_bytes", "_entries")
    counts = {
        "port",
        "workers",
        "backlog",
        "pool_connections",
        "channels_per_session",
        "connections",
        "batch_items",
        "concurrency",
        "max_attempts",
        "max_queued",
        "max_per_batch",
        "max_messages",
        "max_items",
        "connections_per_user",
        "progress_connections",
        "reconnect_attempts",
    }
    for section, type_ in SECTIONS.items():
        for name, default in ((name, getattr(type_(), name)) for name in type_.__struct_fields__):
            if isinstance(default, bool) or not isinstance(default, int | float):
                continue
            assert name.endswith(units) or name in counts or "_per_" in name, f"{section}.{name}"


ROOT = Path(__file__).parents[2]


def test_every_setting_is_in_the_table_of_the_documentation_with_its_default() -> None:
    text = (ROOT / "docs/operations.md").read_text()
    found = re.findall(r"^\| `(\w+\.\w+)` \| ([^|]*?) \|", text, re.MULTILINE)
    rows = {name: cell.strip("`") for name, cell in found}

    def shown(value: object) -> str:
        if isinstance(value, bool):
            return str(value).lower()
        if isinstance(value, tuple):
            return ", ".join(value)
        return f"{value:g}" if isinstance(value, float) else "" if value is None else str(value)

    assert rows == {
        f"{section}.{name}": shown(getattr(type_(), name))
        for section, type_ in SECTIONS.items()
        for name in type_.__struct_fields__
    }


def test_every_setting_is_read_somewhere() -> None:
    read: set[str] = set()
    for file in (ROOT / "server/dualcast").rglob("*.py"):
        if file.name in ("app.py", "features.py", "mapping.py", "stores.py") or file.parent.name == "cli":
            tree = ast.parse(file.read_text())
            read |= {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    unused = {
        f"{section}.{name}"
        for section, type_ in SECTIONS.items()
        for name in type_.__struct_fields__
        if name not in read
    }
    assert not unused - {"bus.engine"}


@pytest.mark.covers("R48", "S1.31", "S3.89")
@pytest.mark.parametrize(("text", "seconds"), [("30", 30), ("45000", 45), ("999", 999), ("1000", 1)])
def test_r48_the_heartbeat_interval_is_milliseconds_from_1000_on(text: str, seconds: float) -> None:
    assert load(environ={"WS_HEARTBEAT_INTERVAL": text}).settings.legacy.ws_heartbeat_s == seconds


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("off", False),
        ("on", True),
        ("Off", False),
        ("no", False),
        ("yes", True),
        ("0", False),
        ("true", True),
    ],
)
def test_switches_may_be_written_in_the_contracts_words(text: str, wanted: bool) -> None:
    """`legacy_stream_ids = off` stands in the contract, and stopped the start."""
    for name in ("LEGACY_STREAM_IDS", "DUALCAST_LEGACY__STREAM_IDS"):
        assert load(environ={name: text}).settings.legacy.stream_ids is wanted
    with pytest.raises(SettingsError, match="LEGACY_STREAM_IDS"):
        load(environ={"LEGACY_STREAM_IDS": "offf"})


@pytest.mark.parametrize("name", ["WS_HEARTBEAT_INTERVAL", "SSE_TASK_MAX_IDLE_SECONDS", "WS_IDLE_TIMEOUT"])
def test_an_interval_that_never_ends_is_refused(name: str) -> None:
    """An infinite heartbeat made `GET /api/ws/config` fail at every call."""
    for text in ("inf", "1e999", "nan"):
        with pytest.raises(SettingsError, match=name):
            load(environ={name: text})


@pytest.mark.parametrize(("text", "noted"), [("30", True), ("31", False), ("0", False), ("1.5", True)])
def test_an_idle_timeout_below_the_clients_ping_is_noted(text: str, noted: bool) -> None:
    notes = load(environ={"WS_IDLE_TIMEOUT": text}).notes
    assert [note.split()[0] for note in notes] == ["legacy.topics_idle_s"] * noted


def test_names_of_older_deployments_set_what_they_always_set() -> None:
    environ = {
        "WS_MAX_CONNECTIONS_PER_USER": "3",
        "WEBSOCKET_MAX_CONNECTIONS": "100",
        "SSE_HEARTBEAT_INTERVAL_SECONDS": "7",
        "TOPICS_PUBLIC": "wallet_updates, system_status",
        "LEGACY_MIRROR": "fallback",
        "REDIS_HOST": "redis.local",
        "FIREBASE_CREDENTIALS_PATH": "/etc/firebase.json",
        "DATABASE_URL": "postgresql://db",
        "SSE_POLL_TIMEOUT_SECONDS": "1",
    }
    loaded = load(environ=environ)
    legacy = loaded.settings.legacy
    assert (legacy.connections_per_user, legacy.progress_connections, legacy.task_heartbeat_s) == (3, 100, 7)
    assert (legacy.topics_public, legacy.mirror) == (("wallet_updates", "system_status"), "fallback")
    assert loaded.settings.push.options == ("credentials_path=/etc/firebase.json",)
    assert [note.split()[0] for note in loaded.notes] == ["DATABASE_URL", "SSE_POLL_TIMEOUT_SECONDS"]


@pytest.mark.parametrize("mirror", ["fallback", "always"])
@pytest.mark.parametrize(
    "environ", [{}, {"REDIS_HOST": "redis.local", "LEGACY_REDIS": "false"}, {"DUALCAST_ENGINE": "memory"}]
)
def test_a_mirror_that_could_copy_nothing_stops_the_start(mirror: str, environ: dict[str, str]) -> None:
    with pytest.raises(SettingsError, match=r"legacy\.mirror"):
        load(environ={**environ, "LEGACY_MIRROR": mirror})
    assert load(environ={**environ, "LEGACY_MIRROR": "off"}).settings.legacy.mirror == "off"


def test_every_older_name_stands_in_the_documentation() -> None:
    text = (ROOT / "docs/operations.md").read_text()
    assert [name for name in [*SHORT, *SECRETS, *PLUG_IN, *WITHOUT_EFFECT] if f"`{name}`" not in text] == []


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("DUALCAST_SERVER__TRUSTED_PROXIES", "10.0.0.300/8", "trusted_proxies: '10.0.0.300/8' is no IP"),
        ("DUALCAST_SERVER__TRUSTED_PROXIES", "10.0.0.1/8", "trusted_proxies: '10.0.0.1/8' is no IP"),
        ("DUALCAST_SERVER__TRUSTED_PROXIES", "proxy.example.com", "'proxy.example.com' is no IP address"),
        ("DUALCAST_REDIS_URL", "redis://:ge/heim@localhost:6379/0", "url is redis://"),
        ("DUALCAST_REDIS_URL", "redis://:geheim@localhost:99999", "url is redis://"),
        ("DUALCAST_REDIS_URL", "redis://localhost:6379/zero", "url is redis://"),
        ("DUALCAST_LOG_LEVEL", "verbose", "log.level (DUALCAST_LOG_LEVEL): 'verbose' is none of debug, info"),
        ("DUALCAST_ENGINE", "postgres", "'postgres' is none of sqlite, redis, memory"),
    ],
)
def test_what_would_fail_only_later_is_refused_by_name_and_without_a_secret(
    name: str, value: str, said: str
) -> None:
    reason = refused({name: value})
    assert said in reason and "heim" not in reason


def test_sound_proxies_and_addresses_of_redis_are_taken() -> None:
    settings = load(
        environ={
            "DUALCAST_SERVER__TRUSTED_PROXIES": "*, 10.0.0.0/8, 2001:db8::/32, 192.0.2.7, ::1",
            "DUALCAST_REDIS_URL": "rediss://user:p%2Fw@[::1]:6380/3?ssl_ca_certs=/etc/ca.pem",
        }
    ).settings
    assert len(settings.server.trusted_proxies) == 5 and settings.engine == "redis"
    assert load(environ={"DUALCAST_REDIS_URL": "unix:///run/redis.sock?db=1"}).settings.redis.url
