"""What makes a tenant acceptable. Every refusal names the field and says what would be right, never a
secret."""

from __future__ import annotations

import ipaddress
from urllib.parse import urlsplit

import msgspec
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from dualcast.model.channel import ALL, KINDS, check_channel_id, check_id, check_tenant
from dualcast.model.errors import BadChannel, BadRequest
from dualcast_migration.policy import StageRecord

from .model import SigningKey, Tenant, TenantSettings, storage_hook

MIN_SECRET_BYTES = 32
"""RFC 7518 section 3.2."""
MIN_RSA_BITS = 2048
"""RFC 7518 section 3.3."""
MAX_KEYS = 16
MAX_PATTERNS = 100
MAX_ORIGINS = 100
MAX_TEXT = 2_048
MAX_KEY_CHARACTERS = 8_192
"""Of a secret or a PEM."""
MAX_STAGE_BYTES = 20 * 1024
"""A stage record as JSON: a stored tenant (96 KiB) holds the present one and the one before."""
MAX_REST_BYTES = 20 * 1024
"""Keys and settings as JSON: however full they are, the guard can still step back."""


class BadTenant(BadRequest):
    """A tenant's description that must not be used."""

    code = "bad-tenant"
    status = 422


def check_tenant_value(tenant: Tenant) -> Tenant:
    """`tenant`, when all of it is sound; raises BadTenant naming the first field that is not, BadChannel for
    its id."""
    check_tenant(tenant.id)
    if len(tenant.keys) > MAX_KEYS:
        raise BadTenant(f"keys: at most {MAX_KEYS}")
    kids: set[str] = set()
    for place, key in enumerate(tenant.keys):
        _check_key(key, f"keys[{place}]")
        if key.kid and key.kid in kids:
            raise BadTenant(f"keys[{place}].kid: another key has the same")
        kids.add(key.kid)
    _check_settings(tenant.settings)
    _check_stage(tenant.stage)
    if len(msgspec.json.encode((tenant.keys, tenant.settings), enc_hook=storage_hook)) > MAX_REST_BYTES:
        raise BadTenant(f"keys and settings: more than {MAX_REST_BYTES} bytes of JSON together")
    return tenant


def _check_stage(stage: StageRecord) -> None:
    for name in ("allow", "deny"):
        for place, user in enumerate(getattr(stage.cohort, name)):
            try:
                check_id(user)
            except BadChannel as error:
                raise BadTenant(f"stage.cohort.{name}[{place}]: {error.reason}") from None
    if len(stage.link) > MAX_TEXT:
        raise BadTenant(f"stage.link: at most {MAX_TEXT} characters")
    if len(msgspec.json.encode(stage)) > MAX_STAGE_BYTES:
        raise BadTenant(f"stage: more than {MAX_STAGE_BYTES} bytes of JSON; name fewer users in the cohort")


def _check_key(key: SigningKey, at: str) -> None:
    for name in ("kid", "issuer", "audience", "jwks_url"):
        text = getattr(key, name)
        if len(text) > MAX_TEXT or not text.isprintable():
            raise BadTenant(f"{at}.{name}: at most {MAX_TEXT} printable characters")
    if len(key.public_key) > MAX_KEY_CHARACTERS or (
        key.secret is not None and len(key.secret.reveal()) > MAX_KEY_CHARACTERS
    ):
        raise BadTenant(f"{at}: a secret or public_key has at most {MAX_KEY_CHARACTERS} characters")
    given = [key.secret is not None, bool(key.public_key), bool(key.jwks_url)]
    if sum(given) != 1:
        raise BadTenant(f"{at}: give exactly one of secret, public_key and jwks_url")
    if key.algorithm == "HS256":
        if key.secret is None:
            raise BadTenant(f"{at}: HS256 takes a secret, never a public key or a JWKS")
        _check_secret(key.secret.reveal(), key.legacy_short_keys, at)
    elif key.secret is not None:
        raise BadTenant(f"{at}: {key.algorithm} takes a public_key or a jwks_url, never a secret")
    elif key.public_key:
        _check_public_key(key, at)
    else:
        _check_url(key.jwks_url, f"{at}.jwks_url")


def _check_secret(secret: str, short: bool, at: str) -> None:
    try:
        size = len(secret.encode())
    except UnicodeEncodeError:
        raise BadTenant(f"{at}.secret: must be valid UTF-8") from None
    if "-----BEGIN" in secret:
        raise BadTenant(f"{at}.secret: a PEM key is not an HS256 secret")
    if size < (1 if short else MIN_SECRET_BYTES):
        raise BadTenant(
            f"{at}.secret: an HS256 secret has at least {MIN_SECRET_BYTES} bytes, this has {size}"
        )


def _check_public_key(key: SigningKey, at: str) -> None:
    if "PRIVATE KEY" in key.public_key:
        raise BadTenant(f"{at}.public_key: this is a private key; give its public half")
    try:
        parsed = load_pem_public_key(key.public_key.encode())
    except (ValueError, UnsupportedAlgorithm):
        raise BadTenant(f"{at}.public_key: not a PEM public key") from None
    if key.algorithm == "RS256":
        if not isinstance(parsed, RSAPublicKey):
            raise BadTenant(f"{at}.public_key: RS256 takes an RSA key")
        if parsed.key_size < MIN_RSA_BITS and not key.legacy_short_keys:
            raise BadTenant(f"{at}.public_key: an RSA key has at least {MIN_RSA_BITS} bits")
    elif key.algorithm == "ES256":
        if not isinstance(parsed, EllipticCurvePublicKey) or not isinstance(parsed.curve, SECP256R1):
            raise BadTenant(f"{at}.public_key: ES256 takes a key on the curve P-256")
    elif not isinstance(parsed, Ed25519PublicKey):
        raise BadTenant(f"{at}.public_key: EdDSA takes an Ed25519 key")


def _check_url(url: str, at: str) -> None:
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        raise BadTenant(f"{at}: not a URL") from None
    if not host or parts.username is not None or parts.fragment:
        raise BadTenant(f"{at}: an https URL without user information and fragment")
    if parts.scheme != "https" and not (parts.scheme == "http" and _is_loopback(host)):
        raise BadTenant(f"{at}: keys are fetched over https only (http on this machine)")


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _check_settings(settings: TenantSettings) -> None:
    if len(settings.public_channels) > MAX_PATTERNS:
        raise BadTenant(f"settings.public_channels: at most {MAX_PATTERNS}")
    for place, pattern in enumerate(settings.public_channels):
        _check_pattern(pattern, f"settings.public_channels[{place}]")
    if len(settings.origins) > MAX_ORIGINS:
        raise BadTenant(f"settings.origins: at most {MAX_ORIGINS}")
    for place, origin in enumerate(settings.origins):
        _check_origin(origin, f"settings.origins[{place}]")
    rate = settings.publish_rate_per_s
    if rate is not None and not 0 < rate < float("inf"):
        raise BadTenant("settings.publish_rate_per_s: above 0")
    for name in (
        "publish_burst",
        "max_connections",
        "max_connections_per_user",
        "history_entries",
        "history_s",
    ):
        number = getattr(settings, name)
        if number is not None and not 1 <= number <= 2**31:
            raise BadTenant(f"settings.{name}: at least 1")


def _check_pattern(pattern: str, at: str) -> None:
    kind, colon, ident = pattern.partition(":")
    if pattern == ALL:
        raise BadTenant(f"{at}: everybody may subscribe to 'all' anyway")
    if not colon or kind not in KINDS:
        raise BadTenant(f"{at}: kind:id, '*' and '?' in the id only, kinds " + ", ".join(sorted(KINDS)))
    if kind == "user":
        raise BadTenant(f"{at}: a user's channel is never public; record a grant instead")
    try:
        check_channel_id(kind, ident)
    except BadChannel as error:
        raise BadTenant(f"{at}: {error.reason}") from None


def _check_origin(origin: str, at: str) -> None:
    try:
        parts = urlsplit(origin)
        host, port = parts.hostname, parts.port
    except ValueError:
        host = port = None
        parts = urlsplit("")
    # An Origin header is compared as text: it must be spelt the way browsers spell it.
    if host is None or origin != f"{parts.scheme}://{_bracket(host)}" + (
        f":{port}" if port is not None else ""
    ):
        raise BadTenant(f"{at}: scheme://host[:port] in lower case, as browsers send it; no path, no '*'")
    if parts.scheme not in ("http", "https") or "*" in host:
        raise BadTenant(f"{at}: http or https, and no '*'")
    if port == {"http": 80, "https": 443}[parts.scheme]:
        raise BadTenant(f"{at}: browsers leave the default port out")


def _bracket(host: str) -> str:
    return f"[{host}]" if ":" in host else host
