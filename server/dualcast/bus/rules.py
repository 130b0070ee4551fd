"""Rules of appending that every engine keeps the same way. Pure but for the random epoch."""

from __future__ import annotations

import secrets

from dualcast.model.channel import ALL
from dualcast.model.errors import BadRequest, IdempotencyConflict, TooManyTargets
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


def is_remembered(draft: Draft) -> bool:
    """Whether the receipt of `draft` is remembered; not for what leaves nothing behind, like typing
    indicators."""
    return not draft.ephemeral or bool(draft.dedupe_key) or draft.push is not None


def badges_first(draft: Draft) -> list[str]:
    """The channels of a draft with an inbox rider, those that get a badge in front: a session that follows
    several of them is given the publication by the first, and shall be given it with its badge."""
    rider = draft.inbox
    if rider is None or len(draft.channels) == 1:
        return list(draft.channels)
    badged = {f"user:{user}" for user in rider.users} | ({ALL} if rider.wide else set())
    return sorted(draft.channels, key=lambda channel: channel not in badged)


def check_draft(draft: Draft) -> None:
    """Raises TooManyTargets, or BadRequest for an ephemeral publication that is to be kept in an inbox."""
    if len(draft.channels) > MAX_TARGETS:
        raise TooManyTargets(f"a publication goes to at most {MAX_TARGETS} channels")
    if draft.ephemeral and draft.inbox is not None:
        raise BadRequest("an ephemeral publication cannot be kept in an inbox")
