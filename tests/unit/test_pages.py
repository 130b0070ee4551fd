"""The files of the server's own pages over HTTP: which there are, their headers, and nothing beside them."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import pytest
from litestar import Litestar
from litestar.testing import TestClient

from dualcast.gateway.pages import page_routes
from dualcast.gateway.static_files import client_files, static_file

CLIENT = Path(__file__).parents[2] / "clients" / "core" / "src"
PLAIN = {"accept-encoding": "identity"}


def serving(**which: bool) -> TestClient[Litestar]:
    return TestClient(Litestar(page_routes(version="1.2.3", **which), openapi_config=None))


def test_the_clients_modules_are_served_as_they_are() -> None:
    wanted = {path.relative_to(CLIENT).as_posix() for path in CLIENT.rglob("*.js")}
    assert set(client_files()) == wanted and {"index.js", "transports/websocket.js"} <= wanted
    with serving(dev=False, test_page=False, console=False) as http:
        for name in wanted:
            answer = http.get(f"/client/{name}", headers=PLAIN)
            assert answer.content == (CLIENT / name).read_bytes()
            assert answer.headers["content-type"] == "text/javascript; charset=utf-8"


OTHERS = (
    *("", "none.js", "transports", "package.json", "index.js%00", "//etc/passwd"),
    *("../package.json", "..%2fpackage.json", "%2e%2e/package.json", "transports%2f..%2findex.js"),
)


@pytest.mark.parametrize("name", OTHERS)
def test_nothing_else_is_below_their_path(name: str) -> None:
    with serving() as http:
        assert http.get(f"/client/{name}").status_code == 404


@pytest.mark.parametrize("path", ["/", "/console", "/demo", "/websocket-test", "/client/index.js"])
def test_pages_may_load_from_here_only_and_run_no_script_inside_them(path: str) -> None:
    with serving() as http:
        headers = http.get(path).headers
    policy = headers["content-security-policy"]
    assert "default-src 'none'; script-src 'self'" in policy and "unsafe" not in policy
    assert "frame-ancestors 'none'" in policy
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "no-referrer"
    assert headers["cache-control"] == "no-cache"


def raw(http: TestClient[Litestar], path: str, **headers: str) -> tuple[Any, bytes]:
    """The answer and its bytes before they are unpacked."""
    given = {name.replace("_", "-"): value for name, value in headers.items()}
    with http.stream("GET", path, headers=given) as answer:
        return answer, b"".join(answer.iter_raw())


def test_a_file_is_compressed_for_who_takes_that_and_has_a_tag_per_encoding() -> None:
    with serving() as http:
        plain, content = raw(http, "/client/client.js", accept_encoding="identity")
        packed, smaller = raw(http, "/client/client.js", accept_encoding="br;q=1.0, gzip;q=0.8")
    assert "content-encoding" not in plain.headers and packed.headers["content-encoding"] == "gzip"
    assert gzip.decompress(smaller) == content and len(smaller) < len(content) / 2
    assert plain.headers["vary"] == packed.headers["vary"] == "Accept-Encoding"
    tags = [one.headers["etag"] for one in (plain, packed)]
    assert tags[0] != tags[1] and all(tag.startswith('"') for tag in tags), "strong, one per representation"


@pytest.mark.parametrize("given", ["gzip;q=0", "gzip;q=0.000", "br", "gzipped", ""])
def test_nobody_gets_an_encoding_they_did_not_name(given: str) -> None:
    with serving() as http:
        assert "content-encoding" not in raw(http, "/client/client.js", accept_encoding=given)[0].headers


def test_who_has_a_file_already_is_told_so() -> None:
    with serving() as http:
        for encoding in ("identity", "gzip"):
            tag = raw(http, "/console", accept_encoding=encoding)[0].headers["etag"]
            for given in (tag, f'"other", {tag}', f"W/{tag}", "*"):
                answer, content = raw(http, "/console", accept_encoding=encoding, if_none_match=given)
                assert (answer.status_code, content) == (304, b""), given
                assert answer.headers["etag"] == tag and answer.headers["cache-control"] == "no-cache"
            answer, content = raw(http, "/console", accept_encoding=encoding, if_none_match='"other"')
            assert answer.status_code == 200 and content


def test_a_tag_follows_the_content() -> None:
    one, same, other = (static_file("a.js", text) for text in (b"one", b"one", b"two"))
    assert one.tag == same.tag != other.tag
    assert one.packed == b"", "too short to become shorter"
    with pytest.raises(KeyError):
        static_file("a.exe", b"")


@pytest.mark.parametrize("console", [True, False])
def test_the_console_is_there_when_it_is_switched_on(console: bool) -> None:
    with serving(dev=False, test_page=False, console=console) as http:
        found = {
            path: http.get(path).status_code
            for path in ("/console", "/pages/console.js", "/pages/console.css", "/pages/console-live.js")
        }
        assert set(found.values()) == {200 if console else 404}, found
        assert ('href="/console"' in http.get("/").text) is console
        assert http.get("/pages/console.html").status_code == 404
