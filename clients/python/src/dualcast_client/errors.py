"""The one error of the client."""

from __future__ import annotations

from collections.abc import Sequence


class DualcastError(Exception):
    """A call that failed for good, after whatever repetitions there were.

    `code`: stable and machine-readable; the server's (listed at its `/docs/errors`), or one of the client's:
    `unreachable`, `timeout` (no answer: `status` is 0), `http-502` (an answer that is not dualcast's),
    `bad-answer`, `bad-token`, `not-configured`, `closed`. `detail`: words for people; never holds the token.
    """

    def __init__(
        self,
        code: str,
        status: int = 0,
        detail: str = "",
        *,
        retryable: bool = False,
        retry_after_s: float | None = None,
        errors: Sequence[tuple[str, str]] = (),
        channels: Sequence[str] = (),
    ) -> None:
        super().__init__(code, status, detail)
        self.code = code
        self.status = status
        """HTTP status; 0: there was no answer."""
        self.detail = detail
        self.retryable = retryable
        """The same call may succeed later."""
        self.retry_after_s = retry_after_s
        """Not before so many seconds."""
        self.errors = tuple(errors)
        """(JSON path, what is wrong there) of a refused body."""
        self.channels = tuple(channels)
        """With `forbidden-channel`: all of those asked for that may not be had."""

    def __str__(self) -> str:
        head = f"{self.status} {self.code}" if self.status else self.code
        wrong = "; ".join(f"{path}: {text}" for path, text in self.errors)
        words = ": ".join(part for part in (self.detail, wrong) if part)
        return f"{head}: {words}" if words else head
