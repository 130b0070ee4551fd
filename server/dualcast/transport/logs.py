"""Keeps query strings, and with them tokens, out of uvicorn's log lines, whichever of its classes writes
them.
"""

from __future__ import annotations

import logging
import re
from typing import Any, Final

_QUERY: Final = re.compile(r"\?[^\s'\"\]\)>]*")
_SCOPE_QUERY: Final = re.compile(r"('query_string': b?)('(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\")")
_SECRET_HEADERS: Final = frozenset(
    ("authorization", "cookie", "proxy-authorization", "sec-websocket-protocol", "set-cookie")
)
_LOGGERS: Final = ("uvicorn", "uvicorn.error", "uvicorn.access", "uvicorn.asgi")


class QueryStringFilter(logging.Filter):
    """Cuts every `?…` in message, arguments and traceback of a record. Never drops a record."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Rewrites `record` in place; always True."""
        if isinstance(record.msg, str) and not record.args:
            record.msg = _clean(record.msg)
        if isinstance(record.args, tuple):
            record.args = tuple(map(_clean, record.args))
            if len(record.args) == 2 and str(record.args[0]).lower() in _SECRET_HEADERS:
                record.args = (record.args[0], "…")  # the `websockets` library's header lines at debug level
        elif isinstance(record.args, dict):
            record.args = {key: _clean(value) for key, value in record.args.items()}
        if record.exc_info and record.exc_info[0] is not None and not record.exc_text:
            record.exc_text = _clean(_FORMATTER.formatException(record.exc_info))
        return True


def install() -> None:
    """Puts the filter on uvicorn's loggers, once per process however often it is called."""
    for name in _LOGGERS:
        logger = logging.getLogger(name)
        if not any(isinstance(present, QueryStringFilter) for present in logger.filters):
            logger.addFilter(QueryStringFilter())


_FORMATTER: Final = logging.Formatter()


def _clean(value: Any) -> Any:
    if isinstance(value, str):
        return _SCOPE_QUERY.sub(r"\1'…'", _QUERY.sub("", value) if "?" in value else value)
    return value
