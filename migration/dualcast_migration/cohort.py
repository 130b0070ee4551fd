"""Which users of a tenant its stage applies to: a percentage by stable hash, with named exceptions."""

from __future__ import annotations

from hashlib import blake2b
from typing import Annotated

from msgspec import Meta, Struct

BUCKETS = 10_000
MAX_NAMED = 1_000

Percent = Annotated[float, Meta(ge=0, le=100)]
Users = Annotated[tuple[str, ...], Meta(max_length=MAX_NAMED)]


def bucket(tenant: str, user: str) -> int:
    """0 to 9,999, the same for ever on every node; tenants are shuffled independently of each other."""
    # A tenant id holds no NUL, so no two pairs are hashed as the same bytes.
    digest = blake2b(f"{tenant}\0{user}".encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "big") % BUCKETS


class Cohort(Struct, frozen=True, forbid_unknown_fields=True):
    """`percent` counts in steps of 0.01, and what is above 0 is at least one. `deny` wins over `allow`, and
    both over the percentage."""

    percent: Percent = 100.0
    allow: Users = ()
    deny: Users = ()

    def __post_init__(self) -> None:
        if not 0 <= self.percent <= 100:
            raise ValueError("percent is 0 to 100")
        if len(self.allow) > MAX_NAMED or len(self.deny) > MAX_NAMED:
            raise ValueError(f"a cohort names at most {MAX_NAMED} users on each list")

    def contains(self, tenant: str, user: str) -> bool:
        """Whether `user` of `tenant` is inside. Raising the percentage never removes anybody."""
        if user in self.deny:
            return False
        if user in self.allow:
            return True
        if self.percent >= 100:
            return True  # every connect asks, and nearly every tenant stands here
        if not self.percent:
            return False
        return bucket(tenant, user) < max(1, round(self.percent * (BUCKETS // 100)))

    def within(self, other: Cohort) -> bool:
        """Whether `other` surely has everybody this one has. It goes by the lists, not by who is on them: a
        user who is allowed here and within the percentage there counts as missing."""
        allowed = other.percent == 100 or set(self.allow) <= set(other.allow)
        return self.percent <= other.percent and allowed and set(other.deny) <= set(self.deny)


EVERYBODY = Cohort()
