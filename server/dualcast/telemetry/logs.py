"""One line per event: JSON for machines, columns for a terminal; the standard library's loggers go the same
way.

Whatever writes a line, `redact` has been over it: tokens, tickets, credentials in URLs and query strings
never reach the log.
"""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import Mapping, MutableMapping
from typing import Any, Literal, TextIO

import structlog
from structlog.typing import Processor

Format = Literal["auto", "json", "console"]
HIDDEN = "[hidden]"

_SECRET_NAMES = frozenset(
    {"authorization", "cookie", "password", "query_string", "secret", "set-cookie", "ticket", "token"}
)
_PATTERNS: tuple[tuple[re.Pattern[str], str], ...] = (
    # A compact JWS, wherever it stands (RFC 7515 3.1): the header is base64url of `{"`.
    (re.compile(r"\beyJ[A-Za-z0-9_-]{4,}\.[A-Za-z0-9_-]*(?:\.[A-Za-z0-9_-]*)?"), HIDDEN),
    (re.compile(r"(?i)\bbearer[ .][^\s\"',;)\]}]+"), f"Bearer {HIDDEN}"),
    # Connect tickets.
    (re.compile(r"\b[ws]\.[0-9a-f]{32}\.[A-Za-z0-9_-]{43}"), HIDDEN),
    # User and password in a URL (redis://user:password@host).
    (re.compile(r"(\b[a-z][a-z0-9+.-]*://)[^\s/@\"']+@"), rf"\1{HIDDEN}@"),
    # Query strings of request targets and URLs, whole: any parameter may be a secret.
    (re.compile(r"((?:^|[\s\"'(])(?:[a-z][a-z0-9+.-]*://|/)[^\s?\"')\]]*)\?[^\s\"')\]]+"), rf"\1?{HIDDEN}"),
    (re.compile(r"(?i)\b(token|ticket|access_token|secret|password)=[^\s&\"']+"), rf"\1={HIDDEN}"),
)
_MAX_DEPTH = 4


def redact(text: str) -> str:
    """`text` without tokens, tickets, URL passwords and query strings."""
    for pattern, replacement in _PATTERNS:
        text = pattern.sub(replacement, text)
    return text


def redact_event(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Structlog processor: `redact` on every text of the event; members with secret names are hidden
    whole.
    """
    for name in event:
        event[name] = HIDDEN if name.lower() in _SECRET_NAMES and event[name] else _clean(event[name], 0)
    return event


def configure(level: str = "info", format: Format = "auto", stream: TextIO | None = None) -> None:
    """Sends structlog and the standard library's loggers to `stream` (default: standard error).

    `level`: debug, info, warning or error; `auto`: console on a terminal, else JSON lines. Called once per
    process before anything is logged; called again it replaces what it installed. uvicorn's own handlers are
    taken away, its access log stays off.
    """
    out = stream or sys.stderr
    as_json = format == "json" or (format == "auto" and not out.isatty())
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
        redact_event,
    ]
    renderer: Processor = (
        structlog.processors.JSONRenderer(ensure_ascii=False)
        if as_json
        else structlog.dev.ConsoleRenderer(
            colors=out.isatty(), exception_formatter=structlog.dev.plain_traceback
        )
    )
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=False,
    )
    handler = logging.StreamHandler(out)
    handler.set_name("dualcast")
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            # Again at the end: what a foreign record brought as arguments is text only now.
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, redact_event, renderer],
        )
    )
    root = logging.getLogger()
    for old in list(root.handlers):
        if old.get_name() == "dualcast":
            root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(level.upper())
    for name in ("uvicorn", "uvicorn.error", "uvicorn.access", "uvicorn.asgi", "litestar"):
        foreign = logging.getLogger(name)
        foreign.handlers.clear()
        foreign.propagate = True
    logging.getLogger("uvicorn.access").disabled = True
    for name in ("httpx", "httpcore"):
        # Their info lines name every URL they fetch.
        logging.getLogger(name).setLevel(max(logging.WARNING, root.level))


def _clean(value: Any, depth: int) -> Any:
    if isinstance(value, str):
        return redact(value)
    if isinstance(value, bytes):
        return redact(value.decode("utf-8", "replace"))
    if depth < _MAX_DEPTH:
        if isinstance(value, Mapping):
            return {
                name: HIDDEN if str(name).lower() in _SECRET_NAMES and item else _clean(item, depth + 1)
                for name, item in value.items()
            }
        if isinstance(value, list | tuple):
            return [_clean(item, depth + 1) for item in value]
    return value if isinstance(value, int | float | bool | None) else redact(str(value))
