"""The WebSocket opening handshake as pure functions (RFC 6455 sections 4.2.1, 4.2.2; RFC 7692 section 5)."""

from __future__ import annotations

import binascii
import hashlib
from base64 import b64encode
from collections.abc import Iterable
from http import HTTPStatus
from typing import NamedTuple

from websockets.exceptions import InvalidHeader
from websockets.headers import parse_extension

Headers = list[tuple[bytes, bytes]]
_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_UNIQUE = frozenset((b"host", b"sec-websocket-key", b"sec-websocket-version"))


class Offer(NamedTuple):
    """A valid upgrade request."""

    accept: bytes
    """Value of Sec-WebSocket-Accept."""
    subprotocols: list[str]
    """In the client's order of preference."""
    deflate: bytes | None
    """Value of Sec-WebSocket-Extensions that accepts the client's compression offer; None: no acceptable
    offer.
    """


class Refusal(Exception):
    """The request is no valid WebSocket upgrade. `headers` explain what would be."""

    def __init__(self, status: int, reason: str, *headers: tuple[bytes, bytes]) -> None:
        super().__init__(reason)
        self.status = status
        self.reason = reason
        self.headers = list(headers)


def tokens(headers: Iterable[tuple[bytes, bytes]], name: bytes) -> list[bytes]:
    """Comma-separated members of all headers called `name` (lower case), stripped, without empty ones."""
    return [
        token
        for key, value in headers
        if key == name
        for member in value.split(b",")
        if (token := member.strip())
    ]


def asks_for_websocket(headers: Iterable[tuple[bytes, bytes]]) -> bool:
    """Whether the request wants to become a WebSocket, validly or not."""
    upgrade, connection = False, False
    for name, value in headers:
        if name == b"upgrade":
            upgrade = upgrade or _has(value, b"websocket")
        elif name == b"connection":
            connection = connection or _has(value, b"upgrade")
    return upgrade and connection


def _has(value: bytes, token: bytes) -> bool:
    value = value.lower()
    return value == token or token in [member.strip() for member in value.split(b",")]


def read_offer(method: str, http_version: str, headers: Headers, *, deflate: bool = True) -> Offer:
    """Checks an upgrade request whose headers have lower-case names; `deflate`: read its compression offer
    too. Raises `Refusal`.
    """
    if method != "GET":
        raise Refusal(405, "a WebSocket upgrade is a GET request", (b"allow", b"GET"))
    if http_version != "1.1":
        raise Refusal(400, "a WebSocket upgrade needs HTTP/1.1")
    unique: dict[bytes, bytes] = {}
    subprotocols: list[str] = []
    extensions: list[str] = []
    for name, value in headers:
        if name in _UNIQUE:
            if name in unique:
                raise Refusal(400, f"more than one {name.decode('ascii')} header")
            unique[name] = value
        elif name == b"sec-websocket-protocol":
            subprotocols += [token.decode("latin-1") for token in tokens(((name, value),), name)]
        elif name == b"sec-websocket-extensions" and deflate:
            extensions.append(value.decode("latin-1"))
        elif name == b"transfer-encoding" or (name == b"content-length" and value.strip() != b"0"):
            raise Refusal(400, "a WebSocket upgrade has no body")
    if b"host" not in unique:
        raise Refusal(400, "no host header")
    if unique.get(b"sec-websocket-version") != b"13":
        raise Refusal(
            426,
            "only WebSocket version 13 is spoken",
            (b"sec-websocket-version", b"13"),
            (b"upgrade", b"websocket"),
        )
    key = unique.get(b"sec-websocket-key", b"").strip()
    try:
        valid = len(key) == 24 and len(binascii.a2b_base64(key, strict_mode=True)) == 16
    except binascii.Error:
        valid = False
    if not valid:
        raise Refusal(400, "sec-websocket-key is not 16 bytes in base64")
    accept = b64encode(hashlib.sha1(key + _GUID, usedforsecurity=False).digest())
    return Offer(accept, subprotocols, deflate_answer(extensions) if extensions else None)


def deflate_answer(offers: Iterable[str]) -> bytes | None:
    """The answer to the first acceptable permessage-deflate offer: no context takeover both ways, the full
    window for what we send (frames are compressed once and shared), so an offer that demands a smaller one is
    passed over.
    """
    for offer in offers:
        try:
            alternatives = parse_extension(offer)
        except InvalidHeader:
            continue
        for name, parameters in alternatives:
            if name != "permessage-deflate" or len(dict(parameters)) != len(parameters):
                continue
            answer = b"permessage-deflate; server_no_context_takeover; client_no_context_takeover"
            for parameter, value in parameters:
                if parameter in ("server_no_context_takeover", "client_no_context_takeover"):
                    if value is not None:
                        break
                elif parameter == "server_max_window_bits":
                    if value != "15":
                        break
                    answer += b"; server_max_window_bits=15"
                elif parameter != "client_max_window_bits" or value not in (None, *map(str, range(8, 16))):
                    break
            else:
                return answer
    return None


def status_line(status: int) -> bytes:
    """The first line of a response."""
    try:
        phrase = HTTPStatus(status).phrase
    except ValueError:
        phrase = ""
    return b"HTTP/1.1 %d %b\r\n" % (status, phrase.encode("ascii"))


def response(status: int, headers: Headers, body: bytes = b"") -> bytes:
    """A whole HTTP/1.1 response that ends its connection; content-length and connection are ours to say."""
    lines = [status_line(status)]
    lines += [
        b"%b: %b\r\n" % pair for pair in headers if pair[0].lower() not in (b"content-length", b"connection")
    ]
    lines.append(b"content-length: %d\r\nconnection: close\r\n\r\n" % len(body))
    lines.append(body)
    return b"".join(lines)


def problem(status: int, reason: str, headers: Headers | None = None) -> bytes:
    """A whole response with problem details (RFC 9457). `reason` is plain ASCII without quotes."""
    phrase = HTTPStatus(status).phrase
    body = f'{{"type":"about:blank","title":"{phrase}","status":{status},"detail":"{reason}"}}'.encode(
        "ascii"
    )
    return response(status, [(b"content-type", b"application/problem+json"), *(headers or [])], body)
