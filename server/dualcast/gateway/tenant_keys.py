"""Where the verifier gets its keys: those of the settings (the legacy tenant's, or bound to one) and those of
the tenant store."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from dualcast.identity.keys import JwksEndpoint, VerificationKey
from dualcast.tenancy.model import SigningKey
from dualcast.tenancy.store import TenantStore

MAX_TENANTS = 1_000
"""Tenants whose prepared keys are kept; beyond it they are prepared anew."""


class TenantKeys:
    """An `identity.keys.KeySource`. Keys of a tenant are prepared once per version of the tenant."""

    def __init__(
        self,
        tenants: TenantStore,
        keys: Iterable[VerificationKey] = (),
        endpoints: Iterable[JwksEndpoint] = (),
    ) -> None:
        self._tenants = tenants
        self._fixed: dict[str, list[VerificationKey]] = {}
        for key in keys:
            self._fixed.setdefault(key.tenant, []).append(key)
        self._fixed_endpoints: dict[str, list[JwksEndpoint]] = {}
        for endpoint in endpoints:
            self._fixed_endpoints.setdefault(endpoint.tenant, []).append(endpoint)
        self._prepared: dict[str, tuple[int, list[VerificationKey], list[JwksEndpoint]]] = {}

    def keys_for(self, tenant: str, kid: str | None) -> Sequence[VerificationKey]:
        return [key for key in self._of(tenant)[1] if kid is None or key.kid in ("", kid)]

    def revision(self, tenant: str) -> int:
        return self._tenants.version(tenant)

    def tenants_hint(self, issuer: str) -> Sequence[str]:
        fixed = (key.tenant for keys in self._fixed.values() for key in keys if key.issuer == issuer)
        return tuple(dict.fromkeys((*fixed, *self._tenants.issued_by(issuer))))

    def endpoints_for(self, tenant: str) -> Sequence[JwksEndpoint]:
        return self._of(tenant)[2]

    def _of(self, tenant: str) -> tuple[int, list[VerificationKey], list[JwksEndpoint]]:
        version = self._tenants.version(tenant)
        found = self._prepared.get(tenant)
        if found is not None and found[0] == version:
            return found
        record = self._tenants.current(tenant)
        own = record.keys if record else ()
        keys = [
            *self._fixed.get(tenant, ()),
            *(_verification(tenant, key) for key in own if not key.jwks_url),
        ]
        endpoints = [
            *self._fixed_endpoints.get(tenant, ()),
            *(_endpoint(tenant, key) for key in own if key.jwks_url),
        ]
        if record is None:
            return version, keys, endpoints  # made-up tenants must not push real ones out
        if len(self._prepared) >= MAX_TENANTS:
            self._prepared.clear()
        self._prepared[tenant] = found = (version, keys, endpoints)
        return found


def _verification(tenant: str, key: SigningKey) -> VerificationKey:
    text = key.secret.reveal() if key.secret is not None else key.public_key
    return VerificationKey(
        algorithm=key.algorithm,
        material=text.encode(),
        tenant=tenant,
        kid=key.kid,
        issuer=key.issuer,
        audience=key.audience,
        legacy_short_keys=key.legacy_short_keys,
    )


def _endpoint(tenant: str, key: SigningKey) -> JwksEndpoint:
    return JwksEndpoint(
        url=key.jwks_url, tenant=tenant, issuer=key.issuer, audience=key.audience, algorithms=(key.algorithm,)
    )
