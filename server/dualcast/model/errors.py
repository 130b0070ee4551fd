"""The one error root. Only `gateway.problems` and `transport` turn these into an HTTP status or a close code.

DualcastError
├── BadRequest            the caller sent something malformed; sending it again cannot help
│   ├── BadChannel        not a channel name
│   ├── BadCursor         not a cursor
│   └── TooManyTargets    more target channels than one publication may have
├── Unauthorized          no credentials, or credentials that do not verify
│   └── TokenExpired      they verified once; fetch new ones
├── Forbidden             known caller, not allowed
│   └── ForbiddenChannels not these channels; `channels` names them
├── NotFound              no such thing in the caller's tenant
├── IdempotencyConflict   the idempotency key was used with another body
├── RateLimited           quota exceeded; come back after `retry_after_s`
├── LimitExceeded         a size or count limit; `limit` says which
└── BusUnavailable        the event bus cannot be reached; nothing was appended as far as we know
"""

from __future__ import annotations

from collections.abc import Sequence


class DualcastError(Exception):
    """Root. `code` is stable and machine-readable (kebab-case), `reason` is safe to show to a client."""

    code = "internal"
    status = 500
    retryable = False
    channels: tuple[str, ...] = ()
    """Which of the caller's channels it is about; (): none in particular."""

    def __init__(self, reason: str, *, code: str | None = None, retry_after_s: float | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.retry_after_s = retry_after_s
        if code is not None:
            self.code = code


class BadRequest(DualcastError):
    code = "bad-request"
    status = 400


class BadChannel(BadRequest):
    code = "bad-channel"
    status = 422


class BadCursor(BadRequest):
    code = "bad-cursor"
    status = 422


class TooManyTargets(BadRequest):
    code = "too-many-targets"
    status = 422


class Unauthorized(DualcastError):
    code = "unauthorized"
    status = 401


class TokenExpired(Unauthorized):
    code = "token-expired"


class Forbidden(DualcastError):
    code = "forbidden"
    status = 403


class ForbiddenChannels(Forbidden):
    """All of the channels asked for that the caller may not have, so that it can go on without them."""

    code = "forbidden-channel"

    def __init__(self, channels: Sequence[str]) -> None:
        more = f" and {len(channels) - 1} more" if len(channels) > 1 else ""
        super().__init__(f"not allowed to subscribe to {channels[0]}{more}")
        self.channels = tuple(channels)


class NotFound(DualcastError):
    code = "not-found"
    status = 404


class IdempotencyConflict(DualcastError):
    code = "idempotency-conflict"
    status = 422


class RateLimited(DualcastError):
    code = "rate-limited"
    status = 429
    retryable = True


class LimitExceeded(DualcastError):
    code = "limit-exceeded"
    status = 413


class BusUnavailable(DualcastError):
    code = "bus-unavailable"
    status = 503
    retryable = True
