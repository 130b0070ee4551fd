"""A tenant: its signing keys, settings and stage, as one frozen value."""

from __future__ import annotations

from hashlib import sha256
from hmac import compare_digest
from typing import Any, Literal

import msgspec
from msgspec import Struct

from dualcast_migration.policy import Decision, StageRecord, decide

Algorithm = Literal["HS256", "RS256", "ES256", "EdDSA"]


class Secret:
    """A text that is shown nowhere: its repr is fixed, and no encoder knows it but the tenant store's own.

    `reveal()` gives the text.
    """

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    def reveal(self) -> str:
        return self._text

    def __repr__(self) -> str:
        return "Secret(…)"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Secret):
            return NotImplemented
        return compare_digest(_octets(self._text), _octets(other._text))

    def __hash__(self) -> int:
        return hash(self._text)

    def __reduce__(self) -> str | tuple[Any, ...]:
        raise TypeError("a secret is not pickled")


def _octets(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


class SigningKey(Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """One key tokens of the tenant may be signed with: one algorithm, and exactly one of `secret`,
    `public_key`, `jwks_url`.

    `validate.check_tenant_value` refuses everything else.
    """

    algorithm: Algorithm
    kid: str = ""
    """The `kid` header of its tokens; "": tried for every token of the tenant."""
    secret: Secret | None = None
    """HS256: at least 32 bytes of UTF-8."""
    public_key: str = ""
    """PEM, SubjectPublicKeyInfo."""
    jwks_url: str = ""
    issuer: str = ""
    """Demanded `iss`; "": any."""
    audience: str = ""
    """Demanded `aud`; "": none."""
    legacy_short_keys: bool = False
    """Accepts a shorter secret or RSA key than the standards allow, for a server that is being replaced."""

    @property
    def source(self) -> str:
        """`secret`, `public_key` or `jwks`."""
        return "secret" if self.secret is not None else "public_key" if self.public_key else "jwks"


class TenantSettings(Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """What a tenant may set for itself. None: the node's default."""

    public_channels: tuple[str, ...] = ()
    """Patterns (`topic:*`) every principal of the tenant may subscribe to."""
    origins: tuple[str, ...] = ()
    """Allowed `Origin` headers, `https://app.example.com`, besides the node's own list."""
    publish_rate_per_s: float | None = None
    publish_burst: int | None = None
    max_connections: int | None = None
    max_connections_per_user: int | None = None
    history_entries: int | None = None
    """Per channel; never more than the server keeps."""
    history_s: int | None = None
    """The same of their age."""


class Tenant(Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """A tenant with everything the server knows of it."""

    id: str
    keys: tuple[SigningKey, ...] = ()
    settings: TenantSettings = TenantSettings()
    stage: StageRecord = StageRecord()

    def decide(self, user: str, now_s: float) -> Decision:
        """What `user` may do on each transport at Unix time `now_s`."""
        return decide(self.stage, self.id, user, now_s)


class KeyView(Struct, frozen=True):
    """A signing key as API callers see it. `fingerprint`: 16 hex digits of a public key's SHA-256, "" for
    secrets."""

    algorithm: str
    kid: str
    source: str
    issuer: str
    audience: str
    jwks_url: str
    fingerprint: str


class TenantView(Struct, frozen=True):
    """A tenant as API callers see it."""

    id: str
    keys: tuple[KeyView, ...]
    settings: TenantSettings
    stage: StageRecord
    version: int


def public_view(tenant: Tenant, version: int = 0) -> TenantView:
    """`tenant` without its secrets."""
    return TenantView(tenant.id, tuple(map(key_view, tenant.keys)), tenant.settings, tenant.stage, version)


def key_view(key: SigningKey) -> KeyView:
    """`key` without its secret."""
    # Never a hash of a secret: a weak one could be guessed from it.
    fingerprint = sha256(key.public_key.strip().encode()).hexdigest()[:16] if key.public_key else ""
    return KeyView(key.algorithm, key.kid, key.source, key.issuer, key.audience, key.jwks_url, fingerprint)


def decode_hook(kind: type, value: Any) -> Any:
    """For msgspec decoders of a Tenant (JSON, TOML)."""
    if kind is Secret and isinstance(value, str):
        return Secret(value)
    raise msgspec.ValidationError(f"Expected `str`, got `{type(value).__name__}`")


def storage_hook(value: Any) -> Any:
    """For the store's own encoder only: reveals secrets."""
    if isinstance(value, Secret):
        return value.reveal()
    raise NotImplementedError(f"a {type(value).__name__} is not stored")
