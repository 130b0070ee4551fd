"""Where Redis is, when sentinels say it."""

from __future__ import annotations

import pytest

from dualcast.bus.redis.dialing import Direct, open_dialer
from dualcast.bus.redis.options import RedisSettings
from dualcast.bus.redis.sentinels import Sentinels, parse_place
from dualcast.mapping import redis_settings
from dualcast.settings import SettingsError, load

ENVIRON = {"DUALCAST_REDIS__SENTINELS": "one:26379, [2001:db8::1]:5000,three"}


def test_sentinels_choose_the_redis_engine_without_a_url() -> None:
    settings = load(environ=ENVIRON).settings
    assert settings.engine == "redis"
    assert settings.redis.sentinels == ("one:26379", "[2001:db8::1]:5000", "three")
    assert isinstance(open_dialer(redis_settings(settings)), Sentinels)
    assert isinstance(open_dialer(RedisSettings()), Direct)


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [("one:1", "one", 1), ("one", "one", 26379), ("[::1]:7", "::1", 7), ("[::1]", "::1", 26379)],
)
def test_a_sentinel_is_host_and_port(text: str, host: str, port: int) -> None:
    assert parse_place(text) == (host, port)


@pytest.mark.parametrize("text", ["", ":1", "one:port", "one:99999", "::1", "[::1", "redis://one:1", "u@one"])
def test_what_is_no_sentinel_stops_the_start(text: str) -> None:
    with pytest.raises(SettingsError, match="sentinels"):
        load(environ={"DUALCAST_REDIS__SENTINELS": f'["{text}"]'})


def test_sentinels_and_a_unix_socket_stop_the_start() -> None:
    with pytest.raises(SettingsError, match="unix socket"):
        load(environ={**ENVIRON, "REDIS_URL": "unix:///run/redis.sock"})


def test_of_the_url_user_password_database_and_tls_count() -> None:
    environ = {
        **ENVIRON,
        "REDIS_URL": "rediss://user:hidden@nobody:1/3",
        "DUALCAST_REDIS__SENTINEL_PASSWORD": "secret too",
    }
    settings = load(environ=environ).settings
    assert "secret too" not in repr(settings) and "hidden" not in repr(settings)
    sentinels = Sentinels(redis_settings(settings))
    assert {(place.password, place.db, place.tls is None) for place in sentinels.places} == {
        ("secret too", 0, False)
    }
