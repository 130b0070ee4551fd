"""Batches of notifications: NDJSON or a JSON array in, a result per item out. A bad item spoils nothing but
itself.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import overload

import msgspec
from msgspec import Raw, Struct

from dualcast.model.errors import BadRequest, DualcastError, LimitExceeded
from dualcast.model.publication import Receipt
from dualcast.publishing.payload import decode
from dualcast.publishing.requests import NotificationRequest

from .problems import FieldError

_item = msgspec.json.Decoder(NotificationRequest)
_array = msgspec.json.Decoder(list[NotificationRequest])
_raw_array = msgspec.json.Decoder(list[Raw])
_TOKEN = re.compile(rb'"(?:[^"\\]|\\.)*"|[\[\]{},]', re.DOTALL)
_MAX_TOKENS = 250_000

Item = NotificationRequest | DualcastError


class ItemResult(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What became of one item. `status` is what the item would have been answered as a single request."""

    status: int
    id: str = ""
    cursor: str = ""
    duplicate: bool = False
    code: str = ""
    detail: str = ""
    retryable: bool = False
    retry_after_s: float | None = None
    errors: tuple[FieldError, ...] = ()


class BatchResult(Struct, frozen=True):
    """Results in the order of the items."""

    accepted: int
    failed: int
    results: list[ItemResult]


class Lines(Sequence[Item]):
    """The items of an NDJSON body, decoded when they are read: so that a large batch can give way to others
    between its slices. Blank lines are left out.
    """

    def __init__(self, body: bytes, *, max_items: int, max_item_bytes: int) -> None:
        """Raises LimitExceeded `too-many-items`, BadRequest when empty."""
        if body.count(b"\n") > 2 * max_items:
            raise _too_many(max_items)
        self._lines = [line for line in body.split(b"\n") if line and not line.isspace()]
        self._max_item_bytes = max_item_bytes
        _check_size(self._lines, max_items)

    def __len__(self) -> int:
        return len(self._lines)

    @overload
    def __getitem__(self, index: int) -> Item: ...
    @overload
    def __getitem__(self, index: slice) -> list[Item]: ...
    def __getitem__(self, index: int | slice) -> Item | list[Item]:
        if isinstance(index, slice):
            return [_decode_one(line, self._max_item_bytes) for line in self._lines[index]]
        return _decode_one(self._lines[index], self._max_item_bytes)


def decode_array(body: bytes, *, max_items: int, max_item_bytes: int) -> list[Item]:
    """The items of a JSON array. Raises BadRequest (not an array, malformed, empty), LimitExceeded
    `too-many-items`.
    """
    try:
        # The usual case: everything is as it should be, decoded in one go.
        if not body.isascii():
            body.decode()
        items = _array.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        items = []
    if items:
        if len(items) > max_items:
            raise _too_many(max_items)
        return list(items)
    # Something is wrong somewhere. Count before anything is built: an array of a million numbers is small
    # only as text.
    _check_count(body, max_items)
    return _decode_each([bytes(raw) for raw in decode(body, _raw_array)], max_items, max_item_bytes)


def result_of(results: Sequence[Receipt | DualcastError]) -> BatchResult:
    """The answer to a batch."""
    items = [
        _failed(result)
        if isinstance(result, DualcastError)
        else ItemResult(
            status=200 if result.duplicate else 201,
            id=result.id,
            cursor=result.cursor,
            duplicate=result.duplicate,
        )
        for result in results
    ]
    failed = sum(1 for item in items if item.code)
    return BatchResult(len(items) - failed, failed, items)


def common_failure(results: Sequence[Receipt | DualcastError]) -> DualcastError | None:
    """The error to answer the whole batch with: when every item failed by the same retryable cause (the bus
    is away).
    """
    first = results[0] if results else None
    if not isinstance(first, DualcastError) or not first.retryable:
        return None
    same = all(isinstance(result, DualcastError) and result.code == first.code for result in results)
    return first if same else None


def _decode_each(lines: list[bytes], max_items: int, max_item_bytes: int) -> list[Item]:
    _check_size(lines, max_items)
    return [_decode_one(line, max_item_bytes) for line in lines]


def _decode_one(line: bytes, max_item_bytes: int) -> Item:
    try:
        if len(line) > max_item_bytes:
            raise LimitExceeded(f"an item has at most {max_item_bytes} bytes", code="payload-too-large")
        return decode(line, _item)
    except DualcastError as error:
        return error


def _check_size(lines: Sequence[bytes], max_items: int) -> None:
    if len(lines) > max_items:
        raise _too_many(max_items)
    if not lines:
        raise BadRequest("the batch has no items", code="bad-request")


def _check_count(body: bytes, max_items: int) -> None:
    """Counts the elements of the outermost array without building them; gives up on bodies of very many
    tokens.
    """
    depth = count = 0
    for number, token in enumerate(_TOKEN.finditer(body)):
        first = body[token.start()]
        if first in b"[{":
            depth += 1
        elif first in b"]}":
            depth -= 1
        elif first == 0x2C and depth == 1:
            count += 1
            if count >= max_items:
                raise _too_many(max_items)
        if number > _MAX_TOKENS:
            raise LimitExceeded("the batch is too complex", code="payload-too-large")


def _failed(error: DualcastError) -> ItemResult:
    return ItemResult(
        status=error.status,
        code=error.code,
        detail=error.reason,
        retryable=error.retryable,
        retry_after_s=error.retry_after_s,
        errors=tuple(FieldError(path, text) for path, text in getattr(error, "errors", ())),
    )


def _too_many(max_items: int) -> LimitExceeded:
    return LimitExceeded(f"a batch has at most {max_items} items", code="too-many-items")
