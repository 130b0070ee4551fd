"""Checks on bytes and names that come from publishers; what passes can be spliced into any frame of any
dialect.

Sources: WHATWG HTML 9.2.6 (a line ends at CR, LF or both; an id with NUL is ignored), RFC 8259 (8.1: UTF-8),
RFC 6455 8.1 (a text frame that is not UTF-8 fails the connection). `msgspec.Raw` keeps whitespace and does
not check UTF-8, so both happen here.
"""

from __future__ import annotations

import re
from typing import TypeVar

import msgspec

from dualcast.model.codes import RESERVED_TYPES
from dualcast.model.errors import BadRequest, LimitExceeded

T = TypeVar("T")

MAX_DEPTH = 64
MAX_TYPE_BYTES = 128
NOTIFICATION = "notification"
_PRINTABLE = re.compile(r"[\x21-\x7e]{1,128}\Z")
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]")
_AT = re.compile(r" - at `(?P<path>.+)`\Z", re.DOTALL)
_OPEN = re.compile(rb'"(?:[^"\\]|\\.)*"|[\[\]{}]', re.DOTALL)
_check_json = msgspec.json.Decoder().decode


class Invalid(BadRequest):
    """The body is JSON but not what was asked for. `errors` holds (JSON path, message) pairs."""

    code = "invalid-body"
    status = 422

    def __init__(
        self, reason: str, *, code: str | None = None, errors: tuple[tuple[str, str], ...] = ()
    ) -> None:
        super().__init__(reason, code=code)
        self.errors = errors


def invalid(path: str, message: str, *, code: str | None = None) -> Invalid:
    """An Invalid that blames one JSON path."""
    return Invalid(message, code=code, errors=((path, message),))


def decode(body: bytes, decoder: msgspec.json.Decoder[T]) -> T:
    """The value in `body`.

    Raises BadRequest `bad-utf8` or `malformed-json`, Invalid `too-deep` or `invalid-body` (with the JSON
    path).
    """
    try:
        if not body.isascii():
            body.decode()
        return decoder.decode(body)
    except msgspec.ValidationError as error:
        raise _explain(error) from None
    except UnicodeDecodeError:
        raise BadRequest("the body is not valid UTF-8", code="bad-utf8") from None
    except msgspec.DecodeError:
        raise BadRequest("the body is not valid JSON", code="malformed-json") from None
    except RecursionError:
        raise _too_deep() from None


def minify(raw: bytes | msgspec.Raw, path: str = "$.data", *, limit: int) -> bytes:
    """`raw` without whitespace, proven to be JSON that every decoder of ours reads again.

    Enters: JSON out of a body that `decode` has passed (so UTF-8). Leaves: one line of UTF-8, at most
    `limit` bytes. Raises LimitExceeded, Invalid `too-deep`, Invalid `invalid-body` (lone surrogates, numbers
    out of range).
    """
    try:
        text = msgspec.json.format(bytes(raw), indent=-1)
        if text.count(b"[") + text.count(b"{") > MAX_DEPTH:
            check_depth(text)
        # `format` copies numbers and escapes unseen; a value that could not be decoded again would fail at
        # delivery.
        _check_json(text)
    except msgspec.MsgspecError:
        raise invalid(path, "contains a value that is not valid JSON") from None
    except UnicodeDecodeError:
        raise BadRequest("the body is not valid UTF-8", code="bad-utf8") from None
    except RecursionError:
        raise _too_deep() from None
    if len(text) > limit:
        raise LimitExceeded(f"data has more than {limit} bytes", code="data-too-large")
    return text


def check_depth(text: bytes) -> None:
    """Raises Invalid `too-deep` when the JSON in `text` nests deeper than MAX_DEPTH. One pass, no
    recursion.
    """
    depth = 0
    for token in _OPEN.finditer(text):
        first = text[token.start()]
        if first in b"[{":
            depth += 1
            if depth > MAX_DEPTH:
                raise _too_deep()
        elif first in b"]}":
            depth -= 1


def check_type(text: str, *, allow_notification: bool = False) -> str:
    """`text` if a publisher may use it as event type; raises Invalid `bad-type` or `reserved-type`."""
    check_kind(text)
    if text in RESERVED_TYPES or (text == NOTIFICATION and not allow_notification):
        raise invalid("$.type", "this event type belongs to the protocol", code="reserved-type")
    return text


def check_kind(text: str) -> str:
    """`text` if it can be a type at all: 1 to 128 bytes without control characters; raises Invalid
    `bad-type`.
    """
    size = len(text) if text.isascii() else len(text.encode())
    if (not text.isprintable() and _CONTROL.search(text)) or not 1 <= size <= MAX_TYPE_BYTES:
        raise invalid("$.type", "a type has 1 to 128 bytes and no control characters", code="bad-type")
    return text


def check_token(text: str, path: str, code: str) -> str:
    """`text` if it is 1 to 128 characters of printable ASCII without spaces (ids, keys); raises Invalid
    `code`.
    """
    if not _PRINTABLE.match(text):
        raise invalid(path, "1 to 128 characters of printable ASCII without spaces", code=code)
    return text


def check_line(text: str | None, path: str) -> str | None:
    """`text` if it has no control characters (titles, links, sources); raises Invalid."""
    if text is not None and not text.isprintable() and _CONTROL.search(text):
        raise invalid(path, "must not contain control characters")
    return text


def _explain(error: msgspec.ValidationError) -> Invalid:
    text = str(error)
    found = _AT.search(text)
    path = found["path"] if found else "$"
    message = text[: found.start()] if found else text
    # Field names of the caller may be in it; they are cut, and JSON-encoded on the way out.
    return Invalid("the body does not have the expected shape", errors=((path[:200], message[:200]),))


def _too_deep() -> Invalid:
    return Invalid(f"JSON nests deeper than {MAX_DEPTH} levels", code="too-deep")
