"""Which token of a request decides."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dualcast.identity.credentials import (
    Credential,
    Kind,
    MalformedAuthorization,
    NoCredentials,
    chosen_subprotocol,
    has_parameter,
    read_credential,
)
from dualcast.model.errors import BadRequest, DualcastError, Unauthorized
from support.tokens import bearer

COOKIE = "__Host-dualcast"


def scope(headers: Any = (), query: bytes = b"", **more: Any) -> dict[str, Any]:
    return {"headers": list(headers), "query_string": query, **more}


def read(
    headers: Any = (), query: bytes = b"", *, kind: Kind = "sse", native: bool = True, **more: Any
) -> tuple[str, str]:
    return tuple(read_credential(scope(headers, query, **more), kind=kind, native=native, cookie_name=COOKIE))  # type: ignore[return-value]


def cookie(*pairs: str) -> list[tuple[bytes, bytes]]:
    return [(b"cookie", "; ".join(pairs).encode())]


def test_each_place() -> None:
    assert read(bearer("t")) == ("header", "t")
    assert read([(b"authorization", b"bEaReR   t  ")]) == ("header", "t")
    assert read(query=b"a=1&token=t&b") == ("query", "t")
    assert read(query=b"token=a%2Eb") == ("query", "a.b")
    assert read(query=b"%74oken=t") == ("query", "t")
    assert read(query=b"ticket=t") == ("ticket", "t")
    assert read(cookie("x=1", f"{COOKIE}=t", "y=2")) == ("cookie", "t")
    assert read(cookie(f'{COOKIE}="t"')) == ("cookie", "t")
    assert read(kind="websocket", subprotocols=["dualcast", "bearer.t"]) == ("subprotocol", "t")
    assert read([(b"sec-websocket-protocol", b"bearer.t, dualcast")], kind="websocket") == (
        "subprotocol",
        "t",
    )


def test_native_order() -> None:
    everything: dict[str, Any] = {
        "headers": [*bearer("h"), *cookie(f"{COOKIE}=c")],
        "query": b"token=q&ticket=k",
        "subprotocols": ["dualcast", "bearer.s"],
    }
    assert read(**everything, kind="websocket") == ("header", "h")
    everything["headers"] = cookie(f"{COOKIE}=c")
    assert read(**everything, kind="websocket") == ("subprotocol", "s")
    everything["subprotocols"] = ["dualcast"]
    assert read(**everything, kind="websocket") == ("ticket", "k")
    everything["query"] = b"token=q"
    assert read(**everything, kind="websocket") == ("query", "q")
    everything["query"] = b""
    assert read(**everything, kind="websocket") == ("cookie", "c")


def test_native_rest_reads_header_and_cookie_only() -> None:
    for query in (b"token=t", b"ticket=t"):
        with pytest.raises(NoCredentials):
            read(query=query, kind="http")
    assert read(cookie(f"{COOKIE}=c"), b"token=t", kind="http") == ("cookie", "c")


def test_legacy_order() -> None:
    headers = [*bearer("h"), *cookie(f"{COOKIE}=c")]
    assert read(headers, b"token=q", native=False) == ("header", "h")
    assert read(headers, b"token=q", native=False, kind="http") == ("header", "h")
    assert read(headers, b"token=q", native=False, kind="websocket") == ("query", "q")
    assert read(headers, b"token=", native=False, kind="websocket") == ("header", "h")
    for kind in ("http", "sse", "websocket"):
        with pytest.raises(NoCredentials):
            read(
                cookie(f"{COOKIE}=c"),
                b"ticket=k",
                native=False,
                kind=kind,
                subprotocols=["dualcast", "bearer.s"],
            )


@pytest.mark.parametrize(
    "value", [b"", b"Bearer", b"Bearer ", b"Basic dXNlcjpwYXNz", b"t", b"Bearer a b", b"Bearer,t", b"Token t"]
)
def test_a_bad_header_is_not_rescued_by_a_good_query(value: bytes) -> None:
    for native in (True, False):
        with pytest.raises(MalformedAuthorization):
            read([(b"authorization", value)], b"token=good", native=native)


@pytest.mark.parametrize(
    ("headers", "query", "more"),
    [
        ([*bearer("a"), *bearer("b")], b"", {}),
        ([*bearer("a"), *bearer("a")], b"", {}),
        ([], b"token=a&token=b", {}),
        ([], b"token=a&%74oken=b", {}),
        ([], b"token=&token=b", {}),
        ([], b"ticket=a&ticket=b", {}),
        (cookie(f"{COOKIE}=a", f"{COOKIE}=b"), b"", {}),
        ([*cookie(f"{COOKIE}=a"), *cookie(f"{COOKIE}=b")], b"", {}),
        ([], b"", {"subprotocols": ["dualcast", "bearer.a", "bearer.b"]}),
        ([], b"", {"subprotocols": ["bearer.a"]}),
        ([], b"", {"subprotocols": ["x"] * 17}),
        ([], b"x=" + b"1" * 17_000, {}),
        ([], b"&" * 300, {}),
        ([(b"cookie", b"a=" + b"b" * 17_000)], b"", {}),
    ],
)
def test_ambiguous_or_excessive_is_refused(headers: Any, query: bytes, more: dict[str, Any]) -> None:
    with pytest.raises(BadRequest):
        read(headers, query, kind="websocket", **more)


@pytest.mark.parametrize("secret", [b"\xff\xfe", "тест".encode(), b"x" * 9000])
def test_not_ascii_or_too_long(secret: bytes) -> None:
    for headers, query in (
        ([(b"authorization", b"Bearer " + secret)], b""),
        ([(b"cookie", COOKIE.encode() + b"=" + secret)], b""),
        ([], b"token=" + secret),
    ):
        with pytest.raises(Unauthorized, match=r"^bad token$"):
            read(headers, query)
    with pytest.raises(Unauthorized, match=r"^bad token$"):
        read(query=b"token=%ff%fe")


@pytest.mark.parametrize(
    ("headers", "query"),
    [
        ([], b""),
        ([], b"token="),
        ([], b"token"),
        ([], b"tokens=t&Token=t"),
        (cookie(COOKIE), b""),
        (cookie(f"{COOKIE}="), b""),
        (cookie(f"x{COOKIE}=t"), b""),
    ],
)
def test_nothing_there(headers: Any, query: bytes) -> None:
    with pytest.raises(NoCredentials):
        read(headers, query)


def test_cookies_are_off_without_a_name() -> None:
    with pytest.raises(NoCredentials):
        read_credential(scope(cookie("=t", "a=b")), kind="sse", native=True)


def test_the_answered_subprotocol_never_carries_the_token() -> None:
    assert chosen_subprotocol(scope(subprotocols=["bearer.t", "dualcast"])) == "dualcast"
    assert chosen_subprotocol(scope(subprotocols=["dualcast"])) == "dualcast"
    assert chosen_subprotocol(scope(subprotocols=["bearer.t", "chat"])) is None
    assert chosen_subprotocol(scope()) is None


def test_has_parameter() -> None:
    assert has_parameter(scope(query=b"a=1&cursor=e-5"), ("cursor",))
    assert not has_parameter(scope(query=b"cursor=&x=1"), ("cursor",))


def test_repr_hides_the_secret() -> None:
    assert "hush" not in repr(Credential("query", "hush"))


@given(
    st.lists(
        st.tuples(st.sampled_from([b"authorization", b"cookie", b"origin"]), st.binary(max_size=50)),
        max_size=4,
    ),
    st.binary(max_size=100),
    st.lists(st.text(max_size=20), max_size=4),
    st.sampled_from(["http", "sse", "websocket"]),
    st.booleans(),
)
def test_any_request_gives_a_credential_or_a_clear_error(
    headers: list[tuple[bytes, bytes]], query: bytes, subprotocols: list[str], kind: Kind, native: bool
) -> None:
    try:
        found = read(headers, query, kind=kind, native=native, subprotocols=subprotocols)
    except DualcastError as refusal:
        assert refusal.status in (400, 401)
    else:
        assert found[1].isascii() and 0 < len(found[1]) <= 8192
