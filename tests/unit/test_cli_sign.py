"""`dualcast token` and the demo key."""

from __future__ import annotations

import stat
from pathlib import Path

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ed25519
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from dualcast.cli.root import run
from dualcast.cli.sign import span_s

SECRET = "k" * 40


@pytest.fixture(autouse=True)
def own_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name in ("DUALCAST_JWT_SECRET", "JWT_SECRET", "SECRET_KEY", "DUALCAST_TOKEN", "DUALCAST_URL"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


def claims(token: str, secret: str = SECRET, algorithm: str = "HS256") -> dict[str, object]:
    return jwt.decode(token, secret, algorithms=[algorithm])


def test_a_token_says_what_was_asked(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DUALCAST_JWT_SECRET", SECRET)
    wanted = ["token", "--sub", "alice", "--role", "publisher", "--channel", "topic:*", "--ttl", "15m"]
    assert run(wanted) == 0
    found = claims(capsys.readouterr().out.strip())
    assert (found["sub"], found["tenant"]) == ("alice", "default")
    assert (found["roles"], found["channels"]) == (["publisher"], ["topic:*"])
    assert int(str(found["exp"])) - int(str(found["iat"])) == 15 * 60


def test_without_a_key_it_says_what_to_do(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["token", "--sub", "alice"]) == 1
    shown = capsys.readouterr()
    assert "DUALCAST_JWT_SECRET" in shown.err and shown.out == "" and "Traceback" not in shown.err


@pytest.mark.parametrize(
    "wrong", [["token"], ["token", "--sub", "a", "--ttl", "soon"], ["token", "--sub", "a\n"]]
)
def test_wrong_usage_is_status_2(wrong: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DUALCAST_JWT_SECRET", SECRET)
    assert run(wrong) == 2


def test_wrong_settings_are_status_2(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DUALCAST_PROT", "1")
    assert run(["token", "--sub", "a"]) == 2
    assert "did you mean DUALCAST_PORT?" in capsys.readouterr().err


def test_the_demo_key_is_private_and_stays(own_directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["token", "--dev"]) == 0 and run(["token", "--dev", "--sub", "bob"]) == 0
    file = own_directory / "data/demo.key"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    first, second = capsys.readouterr().out.split()
    demo, bob = claims(first, file.read_text().strip()), claims(second, file.read_text().strip())
    assert (demo["sub"], demo["roles"]) == ("demo", ["publisher"])
    assert bob["sub"] == "bob" and "roles" not in bob


def test_a_damaged_demo_key_is_refused(own_directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (own_directory / "data").mkdir()
    (own_directory / "data/demo.key").write_text("short")
    assert run(["token", "--dev"]) == 1
    assert "delete it" in capsys.readouterr().err


def test_a_private_key_file_signs(own_directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    private = ed25519.Ed25519PrivateKey.generate()
    pem = private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    (own_directory / "key.pem").write_bytes(pem)
    (own_directory / "c.toml").write_text(
        '[identity]\nissuer = "i"\naudience = "a"\n[[identity.keys]]\nid = "one"\nalgorithm = "EdDSA"\n'
        'public_key_file = "unused.pem"\nprivate_key_file = "key.pem"\n'
    )
    assert run(["token", "--sub", "alice", "--config", "c.toml"]) == 0
    token = capsys.readouterr().out.strip()
    assert jwt.get_unverified_header(token)["kid"] == "one"
    found = jwt.decode(token, private.public_key(), algorithms=["EdDSA"], audience="a", issuer="i")
    assert found["sub"] == "alice"
    (own_directory / "key.pem").write_text("no key")
    assert run(["token", "--sub", "alice", "--config", "c.toml"]) == 1
    assert "not a private key" in capsys.readouterr().err


def test_spans_of_time() -> None:
    assert [span_s(text) for text in ("90", "90s", "15m", "2h", "7d")] == [90, 90, 900, 7200, 604_800]


def test_the_demo_token_is_never_sent_to_another_machine(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["token", "--dev"]) == 0
    assert run(["publish", "--user", "demo", "hi", "--url", "http://notify.example"]) == 1
    assert "no token" in capsys.readouterr().err


def test_serve_without_keys_says_what_to_do(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["serve"]) == 1
    assert "dualcast serve --dev" in capsys.readouterr().err


@pytest.mark.parametrize(
    "wrong",
    [
        ["serve", "--ephemeral", "--engine", "redis"],
        ["serve", "--ephemeral", "--redis-url", "redis://h"],
        ["serve", "--engine", "kafka"],
        ["serve", "--dev", "--workers", "2"],
        ["publish"],
        ["publish", "--user", "a", "--channel", "all"],
        ["publish", "--user", "a", '{"n": 1}'],
        ["tail", "nonsense"],
        ["tail", "--cursor", "nonsense"],
    ],
)
def test_contradictions_are_status_2(wrong: list[str]) -> None:
    assert run(wrong) == 2
