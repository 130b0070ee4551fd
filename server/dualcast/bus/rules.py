"""Rules of appending that every engine keeps the same way. Pure but for the random epoch."""

from __future__ import annotations

import secrets

from dualcast.model.errors import IdempotencyConflict, TooManyTargets
from dualcast.model.publication import Draft, Receipt

MAX_TARGETS = 1000
_ALPHABET = "0123456789abcdefghijklmnopqrstuvwxyz"


def new_epoch() -> str:
    """A random epoch, `[0-9a-z]{6}`."""
    return "".join(secrets.choice(_ALPHABET) for _ in range(6))


def remember_key(draft: Draft) -> str:
    """The key under which the receipt of `draft` is remembered; publishers' keys and ids cannot meet."""
    return "k" + draft.dedupe_key if draft.dedupe_key else "i" + draft.id


def check_repeat(draft: Draft, fingerprint: str, epoch: str, offset: int, ident: str) -> Receipt:
    """The receipt of a draft whose key is remembered with these values. Raises IdempotencyConflict."""
    if fingerprint and draft.fingerprint and fingerprint != draft.fingerprint:
        raise IdempotencyConflict("this idempotency key was used with another body")
    return Receipt(epoch, offset, ident, duplicate=True)


def check_targets(draft: Draft) -> None:
    """Raises TooManyTargets."""
    if len(draft.channels) > MAX_TARGETS:
        raise TooManyTargets(f"a publication goes to at most {MAX_TARGETS} channels")
