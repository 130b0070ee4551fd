"""What is kept of a client: family, version, page origin, and nothing of a person."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dualcast_migration.census import (
    Census,
    CensusRow,
    Row,
    app_version,
    family,
    make_census,
    page_origin,
    visitor,
)

WINDOWS = "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) "
IPHONE = "Mozilla/5.0 (iPhone; CPU iPhone OS 17_6 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) "

MAC = "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 (KHTML, like Gecko) "
ANDROID = "Mozilla/5.0 (Linux; Android 14; SM-S918B) AppleWebKit/537.36 (KHTML, like Gecko) "


@pytest.mark.parametrize(
    ("agent", "expected"),
    [
        (WINDOWS + "Chrome/130.0.6723.70 Safari/537.36", "Chrome 130"),
        (WINDOWS + "Chrome/130.0.0.0 Safari/537.36 Edg/130.0.2849.56", "Edge 130"),
        (WINDOWS + "Chrome/129.0.0.0 Safari/537.36 OPR/115.0.0.0", "Opera 115"),
        (WINDOWS + "HeadlessChrome/131.0.6778.33 Safari/537.36", "Chrome 131"),
        ("Mozilla/5.0 (X11; Linux x86_64; rv:131.0) Gecko/20100101 Firefox/131.0", "Firefox 131"),
        (IPHONE + "Version/17.6 Mobile/15E148 Safari/604.1", "Safari 17"),
        (IPHONE + "CriOS/130.0.6723.90 Mobile/15E148 Safari/604.1", "Chrome 130"),
        (IPHONE + "FxiOS/131.0 Mobile/15E148 Safari/605.1.15", "Firefox 131"),
        (
            MAC + "Version/18.0.1 Safari/605.1.15",
            "Safari 18",
        ),
        (
            ANDROID + "SamsungBrowser/26.0 Chrome/122.0.0.0 Mobile Safari/537.36",
            "Samsung Internet 26",
        ),
        ("Acme/7.3.1 CFNetwork/1490.0.4 Darwin/23.2.0", "app:Acme 7"),
        ("AcmeShop/12 (Android 14; Pixel 8) okhttp/4.12.0", "app:AcmeShop 12"),
        ("Acme-App/v3.2 (iPhone; iOS 17.5)", "app:Acme-App 3"),
        ("okhttp/4.12.0", "okhttp 4"),
        ("Dart/3.5 (dart:io)", "Dart 3"),
        ("python-httpx/0.27.2", "Python 0"),
        ("python-requests/2.32.3", "Python 2"),
        ("Python/3.12 websockets/13.1", "Python 3"),
        ("curl/8.5.0", "curl 8"),
        ("Go-http-client/1.1", "Go 1"),
        ("node", "Node.js"),
        ("", "other"),
        ("Mozilla/5.0", "other"),
        ("my own thing", "other"),
    ],
)
def test_families(agent: str, expected: str) -> None:
    assert family(agent) == expected


@given(st.text(max_size=2_000))
def test_any_user_agent_has_a_short_family(agent: str) -> None:
    assert 0 < len(visitor(agent, "", "", "").agent) <= 48


@given(st.text(max_size=600))
def test_an_origin_never_holds_a_path_or_a_query(url: str) -> None:
    found = page_origin(url)
    assert found == "" or found.startswith(("http://", "https://"))
    assert not set(found.partition("://")[2]) & set("/?#@ ")
    assert len(found) <= 128


@pytest.mark.parametrize(
    ("origin", "referer", "expected"),
    [
        ("https://app.example.com", "https://other.example/", "https://app.example.com"),
        ("", "https://app.example.com/inbox/alice?token=secret#x", "https://app.example.com"),
        ("null", "https://app.example.com:8443/x", "https://app.example.com:8443"),
        ("", "https://alice:secret@app.example.com/", "https://app.example.com"),
        ("http://[::1]:3000", "", "http://[::1]:3000"),
        ("file:///home/alice", "", ""),
        ("", "android-app://com.example", ""),
        ("https://[broken", "", ""),
        ("https://x:99999", "", ""),
        ("https://" + "x" * 200, "", ""),
    ],
)
def test_pages_are_known_by_their_origin_only(origin: str, referer: str, expected: str) -> None:
    assert visitor("", "", origin, referer).origin == expected


def test_the_app_version_is_short_and_printable() -> None:
    assert app_version("1.2.3 beta (üñ)") == "1.2.3 beta (üñ)"
    assert app_version("x" * 64) == "x" * 64
    assert app_version("x" * 65) == app_version("a\nb") == app_version("\x00") == app_version("") == ""


def row(transport: str, live: int, *, instance: bool = False, agent: str = "x") -> CensusRow:
    return CensusRow(
        row=Row(transport, "native", agent, instance=instance),
        connects=live,
        live=live,
        users=live,
        first_ms=0,
        last_ms=0,
    )


def test_those_left_behind_are_live_streams_that_name_no_instance() -> None:
    stays = row("sse", 3, agent="old")
    census = make_census(
        [row("sse", 9, instance=True), stays, row("sse", 0), row("ws", 5), row("ws", 1, instance=True)], 0
    )
    assert census.behind == (stays,)
    assert (census.live("sse"), census.live("ws")) == (12, 6)
    assert [one.live for one in census.rows] == [9, 5, 3, 1, 0]
    assert Census((), 0).behind == ()
