"""Who is calling: the result of authentication."""

from __future__ import annotations

from msgspec import Struct

from .channel import ALL, matches

ADMIN = "admin"
PUBLISHER = "publisher"
OPERATOR = "operator"
"""Of the operators' tenant only: runs the installation, all tenants."""


class Principal(Struct, frozen=True):
    """A verified caller in one tenant. `sub` is the user id; a token's claims decide the rest."""

    tenant: str
    sub: str
    roles: frozenset[str] = frozenset()
    """Claims `role` and `roles` as one set."""
    channels: tuple[str, ...] = ()
    """Patterns of the `channels` claim."""
    expires_at: int = 0
    """Unix seconds of the `exp` claim plus the verifier's leeway; the principal is not valid from then on."""
    token_id: str = ""
    """Claim `jti`, or the first 16 hex digits of the token's SHA-256: what revocation names."""
    issued_at: int = 0
    """Unix seconds of the `iat` claim; 0 (no claim) counts as older than any revocation by user."""
    key_id: str = ""
    """Fingerprint of the key that signed the token: when that key is removed, nothing it vouched for is
    good."""
    role: str = ""
    """Claim `role` as it was said, the first of a list; "": none. Who may do what is decided by `roles`."""

    @property
    def is_admin(self) -> bool:
        return ADMIN in self.roles

    @property
    def may_publish(self) -> bool:
        """Publishing is for backends: roles `publisher` and `admin`."""
        return PUBLISHER in self.roles or ADMIN in self.roles

    def owns(self, channel: str) -> bool:
        """Whether this principal may subscribe to `channel` by its token alone (own user channel, `all`,
        claim)."""
        if channel == ALL or channel == "user:" + self.sub or ADMIN in self.roles:
            return True
        return any(matches(pattern, channel) for pattern in self.channels)
