"""How streams say that SSE comes to its end for a tenant: headers on every answer, and brownouts.

RFC 9745 (`Deprecation`), RFC 8594 (`Sunset` and its link relation), RFC 5829 (`successor-version`).
"""

from __future__ import annotations

import random
from email.utils import formatdate

from dualcast_migration.policy import Decision, Deprecation

Headers = list[tuple[bytes, bytes]]
BROWNOUT_RETRY_S = (20.0, 40.0)
"""Who is sent away by a brownout comes back after a delay in this range: long enough to be noticed, short
enough to be caught up with."""


def deprecation_headers(deprecation: Deprecation | None, successor: str) -> Headers:
    """The headers of an SSE answer; none where SSE is not deprecated. `successor`: path of the socket that
    takes its place."""
    if deprecation is None:
        return []
    found: Headers = []
    if deprecation.deprecated_at:
        found.append((b"deprecation", b"@%d" % deprecation.deprecated_at))
    if deprecation.sunset_at:
        found.append((b"sunset", formatdate(deprecation.sunset_at, usegmt=True).encode()))
    links = f'<{successor}>; rel="successor-version"'
    if deprecation.link:
        links += f', <{deprecation.link}>; rel="deprecation", <{deprecation.link}>; rel="sunset"'
    found.append((b"link", links.encode()))
    return found


def browned_out(decision: Decision) -> float:
    """Seconds after which a connect that this brownout sends away may come back; 0: it is let in."""
    if random.random() * 100 >= decision.brownout_percent:  # noqa: S311 — no secret
        return 0.0
    return random.uniform(*BROWNOUT_RETRY_S)  # noqa: S311 — jitter
