"""Tenants as values: what is accepted, what is refused in which words, and that secrets are shown nowhere."""

from __future__ import annotations

import copy
import io
import logging
import pickle
from pathlib import Path

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from msgspec import convert
from rich.console import Console
from rich.pretty import Pretty

from dualcast.mapping import seeds
from dualcast.model.errors import BadChannel, BadRequest
from dualcast.settings import Settings
from dualcast.tenancy.model import (
    Secret,
    SigningKey,
    Tenant,
    TenantSettings,
    decode_hook,
    public_view,
    storage_hook,
)
from dualcast.tenancy.seeds import load_tenants
from dualcast.tenancy.validate import BadTenant, check_tenant_value
from dualcast_migration.cohort import Cohort
from dualcast_migration.policy import StageRecord
from dualcast_migration.stage import Stage

TEXT = "correct-horse-battery-staple-0123"
HS = SigningKey(algorithm="HS256", secret=Secret(TEXT), kid="a")


def pem(private: object) -> str:
    public = private.public_key()  # type: ignore[attr-defined]
    return public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()  # type: ignore[no-any-return]


RSA_2048 = pem(rsa.generate_private_key(65537, 2048))
RSA_1024 = pem(rsa.generate_private_key(65537, 1024))
P256_PRIVATE = ec.generate_private_key(ec.SECP256R1())
P256, P384 = pem(P256_PRIVATE), pem(ec.generate_private_key(ec.SECP384R1()))
ED25519, ED448 = pem(ed25519.Ed25519PrivateKey.generate()), pem(ed448.Ed448PrivateKey.generate())
PRIVATE = P256_PRIVATE.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()


def tenant(*keys: SigningKey, **settings: object) -> Tenant:
    return Tenant(id="acme", keys=keys, settings=TenantSettings(**settings))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "key",
    [
        HS,
        SigningKey(algorithm="HS256", secret=Secret("x" * 32)),
        SigningKey(algorithm="HS256", secret=Secret("é" * 16)),
        SigningKey(algorithm="HS256", secret=Secret("short"), legacy_short_keys=True),
        SigningKey(algorithm="RS256", public_key=RSA_2048),
        SigningKey(algorithm="RS256", public_key=RSA_1024, legacy_short_keys=True),
        SigningKey(algorithm="ES256", public_key=P256),
        SigningKey(algorithm="EdDSA", public_key=ED25519),
        SigningKey(algorithm="RS256", jwks_url="https://id.example.com/.well-known/jwks.json"),
        SigningKey(algorithm="ES256", jwks_url="http://127.0.0.1:8080/jwks"),
        SigningKey(algorithm="ES256", jwks_url="http://[::1]/jwks"),
    ],
)
def test_sound_keys(key: SigningKey) -> None:
    assert check_tenant_value(tenant(key)).keys == (key,)


@pytest.mark.parametrize(
    "key,words",
    [
        (SigningKey(algorithm="HS256"), "exactly one of"),
        (SigningKey(algorithm="HS256", secret=Secret(TEXT), public_key=RSA_2048), "exactly one of"),
        (SigningKey(algorithm="RS256", jwks_url="https://e.org/j", public_key=RSA_2048), "exactly one of"),
        (SigningKey(algorithm="HS256", public_key=RSA_2048), "HS256 takes a secret"),
        (SigningKey(algorithm="HS256", jwks_url="https://e.org/jwks"), "HS256 takes a secret"),
        (SigningKey(algorithm="HS256", secret=Secret(RSA_2048)), "PEM key is not an HS256 secret"),
        (SigningKey(algorithm="RS256", secret=Secret(TEXT)), "never a secret"),
        (SigningKey(algorithm="HS256", secret=Secret("x" * 31)), "at least 32 bytes, this has 31"),
        (SigningKey(algorithm="HS256", secret=Secret("")), "at least 32 bytes"),
        (SigningKey(algorithm="HS256", secret=Secret(""), legacy_short_keys=True), "this has 0"),
        (SigningKey(algorithm="HS256", secret=Secret("\ud800" * 40)), "UTF-8"),
        (SigningKey(algorithm="RS256", public_key=RSA_1024), "at least 2048 bits"),
        (SigningKey(algorithm="RS256", public_key=P256), "RSA key"),
        (SigningKey(algorithm="ES256", public_key=RSA_2048), "P-256"),
        (SigningKey(algorithm="ES256", public_key=P384), "P-256"),
        (SigningKey(algorithm="EdDSA", public_key=P256), "Ed25519"),
        (SigningKey(algorithm="EdDSA", public_key=ED448), "Ed25519"),
        (SigningKey(algorithm="ES256", public_key=PRIVATE), "private key"),
        (SigningKey(algorithm="ES256", public_key="nonsense"), "not a PEM public key"),
        (SigningKey(algorithm="RS256", jwks_url="http://id.example.com/jwks"), "https only"),
        (SigningKey(algorithm="RS256", jwks_url="file:///etc/passwd"), "https"),
        (SigningKey(algorithm="RS256", jwks_url="https://me:pw@e.org/jwks"), "user information"),
        (SigningKey(algorithm="RS256", jwks_url="https://[::1/jwks"), "not a URL"),
        (SigningKey(algorithm="HS256", secret=Secret(TEXT), kid="a\nb"), "printable"),
    ],
)
def test_refused_keys_say_why_and_where(key: SigningKey, words: str) -> None:
    with pytest.raises(BadTenant) as caught:
        check_tenant_value(tenant(HS, key))
    assert words in caught.value.reason
    assert caught.value.reason.startswith("keys[1]")
    assert caught.value.status == 422
    assert TEXT not in caught.value.reason


def test_key_names_are_unique_and_few() -> None:
    check_tenant_value(
        tenant(SigningKey(algorithm="HS256", secret=Secret(TEXT)), msgspec.structs.replace(HS, kid=""))
    )
    with pytest.raises(BadTenant, match="same"):
        check_tenant_value(tenant(HS, HS))
    with pytest.raises(BadTenant, match="at most 16"):
        check_tenant_value(tenant(*[msgspec.structs.replace(HS, kid="") for _ in range(17)]))


@pytest.mark.parametrize("name", ["", "Acme", "a_b", "a/b", "a" * 64, "acme\n"])
def test_tenant_ids_are_checked(name: str) -> None:
    with pytest.raises(BadChannel):
        check_tenant_value(Tenant(id=name))


def test_sound_settings() -> None:
    check_tenant_value(
        tenant(
            public_channels=("topic:*", "room:房间", "task:a?"),
            origins=("https://app.example.com", "http://localhost:3000", "https://[::1]:8443"),
            publish_rate_per_s=0.5,
            publish_burst=1,
            max_connections=10,
            max_connections_per_user=1,
            history_entries=1,
            history_s=60,
        )
    )


@pytest.mark.parametrize(
    "name,value",
    [
        *[
            ("public_channels", (pattern,))
            for pattern in ["*", "", "all", "to*:x", "topic:", "user:*", "user:bob", "topic:a\n"]
        ],
        *[
            ("origins", (origin,))
            for origin in [
                "*",
                "null",
                "app.example.com",
                "https://app.example.com/",
                "https://App.example.com",
                "https://app.example.com:443",
                "https://*.example.com",
                "ftp://e.org",
                "https://e.org:99999",
                "https://me@e.org",
            ]
        ],
        ("public_channels", ("topic:a",) * 101),
        ("origins", ("https://e.org",) * 101),
        *[("publish_rate_per_s", rate) for rate in (0, -1, float("inf"), float("nan"))],
        *[
            (name, number)
            for name in (
                "publish_burst",
                "max_connections",
                "max_connections_per_user",
                "history_entries",
                "history_s",
            )
            for number in (0, -1, 2**40)
        ],
    ],
)
def test_refused_settings_name_the_field(name: str, value: object) -> None:
    with pytest.raises(BadTenant, match=f"settings.{name}"):
        check_tenant_value(tenant(**{name: value}))


def test_a_secret_is_shown_nowhere(caplog: pytest.LogCaptureFixture) -> None:
    value = tenant(HS)
    screen = io.StringIO()
    Console(file=screen, width=200).print(Pretty(value), value)
    with caplog.at_level(logging.DEBUG):
        logging.getLogger("t").warning("%s %r", value, value.keys[0])
    shown = [
        repr(value),
        str(value),
        f"{HS.secret}",
        screen.getvalue(),
        caplog.text,
        str(msgspec.structs.asdict(HS)),
    ]
    assert all(TEXT not in text for text in shown)
    assert "HS256" in shown[0]
    for leak in (
        msgspec.json.encode,
        msgspec.msgpack.encode,
        msgspec.to_builtins,
        pickle.dumps,
        copy.deepcopy,
    ):
        with pytest.raises(TypeError):
            leak(value)


def test_the_public_view_has_no_secret() -> None:
    key = SigningKey(algorithm="RS256", public_key=RSA_2048, kid="r", issuer="https://id.example.com")
    value = Tenant(id="acme", keys=(HS, key), stage=StageRecord(stage=Stage.SHADOW))
    text = msgspec.json.encode(public_view(value, 7)).decode()
    assert TEXT not in text and "BEGIN" not in text
    shown = msgspec.json.decode(text)
    assert shown["version"] == 7
    assert [(k["kid"], k["source"], bool(k["fingerprint"])) for k in shown["keys"]] == [
        ("a", "secret", False),
        ("r", "public_key", True),
    ]
    assert shown["stage"]["stage"] == "shadow"


def test_storage_keeps_the_whole_tenant() -> None:
    value = Tenant(
        id="acme",
        keys=(HS, SigningKey(algorithm="ES256", public_key=P256)),
        settings=TenantSettings(origins=("https://e.org",), publish_rate_per_s=2.5),
        stage=StageRecord(stage=Stage.WEBSOCKET, cohort=Cohort(10, ("a",), ("b",)), sunset_at=9),
    )
    text = msgspec.json.encode(value, enc_hook=storage_hook)
    assert TEXT.encode() in text
    assert msgspec.json.decode(text, type=Tenant, dec_hook=decode_hook) == value


def test_equal_secrets_are_equal() -> None:
    assert Secret(TEXT) == Secret(TEXT) != Secret(TEXT + "x")
    assert Secret(TEXT) != TEXT
    assert len({Secret(TEXT), Secret(TEXT)}) == 1


TOML = f"""
[[tenants]]
id = "acme"
[[tenants.keys]]
algorithm = "HS256"
kid = "a"
secret = "{TEXT}"
[tenants.settings]
public_channels = ["topic:*"]
[tenants.stage]
stage = "shadow"
cohort = {{ percent = 5.0, allow = ["alice"] }}

[[tenants]]
id = "globex"
"""


def test_tenants_come_from_toml_and_json(tmp_path: Path) -> None:
    acme = Tenant(
        id="acme",
        keys=(HS,),
        settings=TenantSettings(public_channels=("topic:*",)),
        stage=StageRecord(stage=Stage.SHADOW, cohort=Cohort(5, ("alice",))),
    )
    toml, json = tmp_path / "tenants.toml", tmp_path / "tenants.json"
    toml.write_text(TOML)
    json.write_bytes(msgspec.json.encode({"tenants": [acme, Tenant(id="globex")]}, enc_hook=storage_hook))
    assert load_tenants(toml) == load_tenants(json) == (acme, Tenant(id="globex"))


@pytest.mark.parametrize(
    "name,text,words",
    [
        ("t.toml", TOML.replace("HS256", "none"), r"tenants\[0\]\.keys\[0\]\.algorithm|\[\.\.\.\]"),
        ("t.toml", TOML.replace("kid =", "kit ="), "unknown field `kit`"),
        ("t.toml", TOML.replace(TEXT, TEXT[:9]), "tenant acme: keys.0..secret: .*at least 32"),
        ("t.toml", TOML.replace("globex", "acme"), "twice"),
        ("t.toml", TOML + "[[tenants", "not well-formed TOML"),
        ("t.json", f'{{"tenants": [{{"id": "{TEXT}', "not well-formed JSON"),
        ("t.json", '{"tenants": [{"id": "a", "keys": [{"algorithm": "HS256", "secret": 7}]}]}', "str"),
        ("t.json", '{"tenants": [{"id": "A"}]}', "tenant id"),
        ("t.yaml", "", r"\.toml or \.json"),
    ],
)
def test_a_bad_file_says_where(tmp_path: Path, name: str, text: str, words: str) -> None:
    path = tmp_path / name
    path.write_text(text)
    with pytest.raises(BadRequest, match=words) as caught:
        load_tenants(path)
    assert TEXT not in caught.value.reason


def test_a_file_of_tenants_cannot_ask_for_more_history_than_the_server_keeps(tmp_path: Path) -> None:
    path = tmp_path / "tenants.toml"
    settings = convert({"tenancy": {"file": str(path)}, "bus": {"history_entries": 100}}, Settings)
    path.write_text('[[tenants]]\nid = "acme"\n[tenants.settings]\nhistory_entries = 100\nhistory_s = 60\n')
    (default, acme) = seeds(settings)
    assert default.id == "default" and (acme.settings.history_entries, acme.settings.history_s) == (100, 60)
    path.write_text('[[tenants]]\nid = "acme"\n[tenants.settings]\nhistory_entries = 101\n')
    with pytest.raises(BadTenant, match=r"acme: settings.history_entries: at most .* 100"):
        seeds(settings)
