"""The Origin allow-list against what attackers write into it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dualcast.identity.origin import BadOrigin, Origins, parse

LIST = Origins(
    ["https://app.example.com", "https://*.example.org", "http://localhost:5173", "capacitor://localhost"]
)


@pytest.mark.parametrize(
    "origin",
    [
        "https://app.example.com",
        "https://app.example.com:443",
        "HTTPS://APP.Example.COM",
        "https://a.example.org",
        "https://a.b.example.org",
        "https://xn--bcher-kva.example.org",
        "https://a_b.example.org",
        "http://localhost:5173",
        "capacitor://localhost",
    ],
)
def test_allowed(origin: str) -> None:
    assert LIST.allows(origin)
    assert LIST.allows(origin, cookie=True)


@pytest.mark.parametrize(
    "origin",
    [
        "",
        "null",
        "*",
        "https://",
        "app.example.com",
        "//app.example.com",
        "http://app.example.com",
        "https://app.example.com:8443",
        "https://app.example.com:",
        "https://app.example.com:0443x",
        "https://app.example.com:99999",
        "https://app.example.com/",
        "https://app.example.com/x",
        "https://app.example.com?x",
        "https://app.example.com#x",
        "https://app.example.com.",
        "https://app.example.com\n",
        "https://app.example.com\x00",
        " https://app.example.com",
        "https://app.example.com https://evil.com",
        "https://app.example.com,https://evil.com",
        "https://user@app.example.com",
        "https://app.example.com@evil.com",
        "https://app.example.com:443@evil.com",
        "https://app.example.com%2eevil.com",
        "https://app.example.com\\.evil.com",
        "https://app-example.com",
        "https://appXexample.com",
        "https://app.example.com.evil.com",
        "https://evilapp.example.com",
        "https://example.org",
        "https://evilexample.org",
        "https://.example.org",
        "https://a..example.org",
        "https://-.example.org",
        "https://*.example.org",
        "https://a.example.org.evil.com",
        "https://evil.com/.example.org",
        "https://evil.com#.example.org",
        "https://evil.com?.example.org",
        "https://evil.com\\.example.org",
        "https://a.example.org:8443",
        "http://a.example.org",
        "https://а.example.org",
        "https://a.еxample.org",
        "https://a\u3002example.org",
        "https://a.example\u2024org",
        "http://localhost",
        "http://localhost:51730",
        "http://127.0.0.1:5173",
        "http://[::1]:5173",
        "https://[::1",
        "https://a.example.org" + "x" * 600,
        "data:text/html,x",
        "file://",
        "javascript:alert(1)",
    ],
)
def test_refused(origin: str) -> None:
    assert not LIST.allows(origin)


def test_no_list_means_same_host_only() -> None:
    none = Origins()
    assert not none.allows("https://app.example.com")
    assert none.allows("https://app.example.com", host="app.example.com", cookie=True)


@pytest.mark.parametrize(
    ("origin", "host", "secure", "same"),
    [
        ("https://a.example", "a.example", True, True),
        ("https://a.example", "A.Example", True, True),
        ("https://a.example", "a.example:443", True, True),
        ("https://a.example", "a.example", False, True),  # a proxy ends TLS
        ("http://a.example", "a.example", False, True),
        ("http://a.example", "a.example", True, False),  # a page without TLS, in the middle
        ("http://localhost:8000", "localhost:8000", False, True),
        ("http://[::1]:8000", "[::1]:8000", False, True),
        ("https://a.example:8443", "a.example", True, False),
        ("https://a.example", "a.example:8443", True, False),
        ("https://a.example", "b.example", True, False),
        ("https://a.example", "", True, False),
        ("https://a.example", "a.example,b", True, False),
        ("https://a.example", "user@a.example", True, False),
        ("https://a.example", "a.example/", True, False),
        ("null", "null", True, False),
        ("chrome-extension://abc", "abc", False, False),
    ],
)
def test_same_host(origin: str, host: str, secure: bool, same: bool) -> None:
    assert Origins().allows(origin, host=host, secure=secure) == same


def test_missing_origin_is_no_browser_page() -> None:
    assert LIST.allows(None)
    assert not LIST.allows(None, cookie=True)
    assert not Origins(["*"]).allows(None, cookie=True)


def test_star_never_covers_cookies() -> None:
    anyone = Origins(["*", "https://mine.example"])
    assert anyone.allows("https://evil.example")
    assert anyone.allows("null")
    assert not anyone.allows("https://evil.example", cookie=True)
    assert not anyone.allows("null", cookie=True)
    assert anyone.allows("https://mine.example", cookie=True)
    assert not anyone.allows("not an origin")


def test_null_must_be_asked_for() -> None:
    assert Origins(["null"]).allows("null")
    assert not Origins(["null"]).allows("null", cookie=True)


def test_unicode_entries_are_punycode_on_the_wire() -> None:
    listed = Origins(["https://bücher.example", "https://*.bücher.example:8443"])
    assert listed.allows("https://xn--bcher-kva.example")
    assert listed.allows("https://shop.xn--bcher-kva.example:8443")
    assert not listed.allows("https://bücher.example")


@pytest.mark.parametrize(
    "entry",
    [
        "",
        "example.com",
        "https://",
        "https://*",
        "https://*.com",
        "https://*.127.0.0.1",
        "https://*.[::1]",
        "https://a.*.example.com",
        "https://*example.com",
        "https://example.com/path",
        "https://user@example.com",
        "https://user@bücher.example",
        "**",
        "*.example.com",
    ],
)
def test_entries_that_mean_something_else_than_they_look(entry: str) -> None:
    with pytest.raises(BadOrigin):
        Origins([entry])


@given(st.text())
def test_any_text_parses_or_not(text: str) -> None:
    page = parse(text)
    assert page is None or text.isascii()
    assert LIST.allows(text) in (True, False)


@given(st.from_regex(r"[a-z0-9.@:/\\?#*_-]{1,30}", fullmatch=True))
def test_a_wildcard_lets_in_only_its_own_subdomains(prefix: str) -> None:
    if Origins(["https://*.example.org"]).allows(f"https://{prefix}example.org"):
        assert prefix.endswith(".") and not set(prefix) & set("@:/\\?#*")
