"""Providers: how they are found, what stops the start, the documented log lines, signatures."""

from __future__ import annotations

import asyncio
import logging
import sys
import types
from importlib.metadata import EntryPoint
from typing import Any

import pytest
from msgspec import Raw

from dualcast.model.push import PushMessage
from dualcast.push.port import ProviderUnusable, PushJob, Refused
from dualcast.push.providers import finding
from dualcast.push.providers.finding import find_provider, open_provider
from dualcast.push.providers.log import LogProvider
from dualcast.push.signature import sign, verify

pytestmark = pytest.mark.anyio
SECRET = "s" * 32


def job(**message: Any) -> PushJob:
    fields = {"id": "n1", "title": "顾问回复", "text": "您好", **message}
    fields["data"] = Raw(fields.get("data", b"{}"))
    return PushJob(
        tenant="default",
        id="n1",
        user=fields.pop("user", "customer_456"),
        message=PushMessage(**fields),
        attempt=1,
        queued_ms=1_700_000_000_123,
        deadline_ms=1_700_003_600_123,
    )


async def lines(caplog: pytest.LogCaptureFixture, push: PushJob) -> list[tuple[str, str]]:
    with caplog.at_level(logging.DEBUG, "dualcast.push"):
        await LogProvider().send(push)
    return [(record.levelname, record.getMessage()) for record in caplog.records]


@pytest.mark.covers("S3.62")
async def test_the_log_provider_writes_the_documented_lines(caplog: pytest.LogCaptureFixture) -> None:
    """R43: priority and data are shown. The DEBUG line is the first of S3.63."""
    data = b'{"conversation_id":"conv_123","action":"open_conversation"}'
    push = job(text="x" * 60, priority="high", data=data, devices=("mobile",))
    assert await lines(caplog, push) == [
        ("INFO", "📱 推送通知 [mobile] [优先级: high]: customer_456"),
        ("INFO", "   标题: 顾问回复"),
        ("INFO", "   内容: " + "x" * 50 + "..."),
        ("INFO", "   [数据: {'conversation_id': 'conv_123', 'action': 'open_conversation'}]"),
        ("DEBUG", "移动端推送通知已排队: user_id=customer_456"),
    ]


async def test_a_text_that_was_cut_already_is_not_cut_again(caplog: pytest.LogCaptureFixture) -> None:
    assert ("INFO", "   内容: " + "字" * 50 + "...") in await lines(caplog, job(text="字" * 50 + "..."))


async def test_a_push_without_devices_or_data_has_all_lines(caplog: pytest.LogCaptureFixture) -> None:
    found = await lines(caplog, job())
    assert found[0] == ("INFO", "📱 推送通知 [mobile] [优先级: normal]: customer_456")
    assert found[3] == ("INFO", "   [数据: {}]")
    assert len(found) == 5


async def test_no_text_of_a_user_can_forge_a_log_line(caplog: pytest.LogCaptureFixture) -> None:
    evil = "a\r\nERROR root: gone\x1b[2J\x85\u2028\u202eb\x00%s %d {}"
    push = job(title=evil, text=evil[:40], user=evil, data=b'{"k\\n":"v\\r\\n\\u001b\\u2028\\u202e"}')
    found = await lines(caplog, push)
    assert len(found) == 5
    for _, text in found:
        assert text.isprintable(), text
    assert "%s %d {}" in found[1][1]


async def test_long_texts_of_users_are_cut(caplog: pytest.LogCaptureFixture) -> None:
    push = job(title="t" * 5000, data=b'{"k":"' + b"v" * 5000 + b'"}')
    assert all(len(text) < 1100 for _, text in await lines(caplog, push))


@pytest.mark.parametrize("data", [b"{", b"[" * 100_000, b"\xff"])
async def test_data_that_cannot_be_shown_costs_no_push(caplog: pytest.LogCaptureFixture, data: bytes) -> None:
    assert ("INFO", "   [数据: ?]") in await lines(caplog, job(data=data))


@pytest.mark.parametrize(("name", "is_called"), [("log", "log"), ("logging", "log"), ("none", "none")])
async def test_providers_are_found_by_name(name: str, is_called: str) -> None:
    provider = await open_provider(name)
    assert provider.name == is_called
    await provider.close()


async def test_none_refuses_what_is_left_in_the_queue() -> None:
    with pytest.raises(Refused, match="no-provider"):
        await (await open_provider("none")).send(job())


@pytest.mark.parametrize("name", ["firebase", "", "Log", "../webhook"])
async def test_an_unknown_provider_stops_the_start(name: str) -> None:
    """R44: no silent fallback."""
    with pytest.raises(ProviderUnusable, match="log, logging, none, webhook") as caught:
        await open_provider(name)
    assert repr(name) in caught.value.reason


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({}, "the url must be https"),
        ({"url": "https://push.example.com/", "secret": "s" * 31}, "32 bytes"),
        ({"url": "http://push.example.com/", "secret": SECRET}, "allow_http"),
        ({"url": "ftp://push.example.com/", "secret": SECRET}, "https"),
        ({"url": "https:///x", "secret": SECRET}, "https"),
        ({"url": "https://push.example.com:x/", "secret": SECRET}, "not valid"),
        ({"url": "https://push.example.com:99999/", "secret": SECRET}, "not valid"),
        ({"url": "https://a:b@push.example.com/", "secret": SECRET}, "no user and password"),
        ({"url": "https://push.example.com/", "secret": SECRET, "timeout_s": 0}, "timeout_s"),
        ({"url": "https://push.example.com/", "secret": 5}, "secret"),
    ],
)
async def test_an_unusable_webhook_stops_the_start(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(ProviderUnusable, match="webhook") as caught:
        await open_provider("webhook", settings)
    assert words in caught.value.reason
    assert SECRET not in caught.value.reason and "a:b" not in caught.value.reason


@pytest.mark.parametrize(
    ("url", "allow"),
    [
        ("https://push.example.com/x?y=1", False),
        ("http://127.0.0.1:9/", False),
        ("http://[::1]:9/", False),
        ("http://localhost/", False),
        ("http://push.internal/", True),
    ],
)
async def test_a_usable_webhook_needs_no_call(url: str, allow: bool) -> None:
    provider = await open_provider("webhook", {"url": url, "secret": SECRET, "allow_http": allow})
    assert provider.name == "webhook"
    await provider.close()


class Installed:
    """A provider of an installed package."""

    name = "installed"

    def __init__(self, settings: Any) -> None:
        self.settings = settings
        if settings.get("broken"):
            raise KeyError("token=secret")

    async def check(self) -> None:
        if self.settings.get("unusable"):
            raise ProviderUnusable("no credentials for the push service")
        if self.settings.get("failing"):
            raise OSError("token=secret")
        if self.settings.get("hanging"):
            await asyncio.Event().wait()

    async def send(self, job: PushJob) -> None: ...
    async def close(self) -> None: ...


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> None:
    module = types.ModuleType("push_provider_of_a_test")
    module.make = Installed  # type: ignore[attr-defined]
    module.halfway = lambda settings: types.SimpleNamespace(name="halfway")  # type: ignore[attr-defined]
    module.useless = lambda settings: object()  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, module.__name__, module)
    points = [
        EntryPoint("installed", module.__name__ + ":make", finding.GROUP),
        EntryPoint("useless", module.__name__ + ":useless", finding.GROUP),
        EntryPoint("halfway", module.__name__ + ":halfway", finding.GROUP),
        EntryPoint("gone", module.__name__ + ":missing", finding.GROUP),
        EntryPoint("twice", module.__name__ + ":make", finding.GROUP),
        EntryPoint("twice", module.__name__ + ":useless", finding.GROUP),
        EntryPoint("log", module.__name__ + ":make", finding.GROUP),
    ]
    monkeypatch.setattr(finding, "entry_points", lambda group: [p for p in points if p.group == group])


@pytest.mark.covers("S3.60")
async def test_a_provider_of_an_installed_package_gets_its_settings(installed: None) -> None:
    provider = await open_provider("installed", {"key": "value"})
    assert isinstance(provider, Installed)
    assert provider.settings == {"key": "value"}


async def test_an_installed_package_does_not_replace_ours(installed: None) -> None:
    assert isinstance(find_provider("log"), LogProvider)


@pytest.mark.parametrize(
    ("name", "settings", "words"),
    [
        ("installed", {"broken": True}, "cannot be made"),
        ("installed", {"unusable": True}, "no credentials"),
        ("installed", {"failing": True}, "its check failed"),
        ("installed", {"hanging": True}, "its check takes"),
        ("useless", {}, "no name"),
        ("halfway", {}, "no check"),
        ("gone", {}, "cannot be loaded"),
        ("twice", {}, "2 installed packages"),
        ("other", {}, "gone, halfway, installed, log"),
    ],
)
async def test_an_unusable_installed_provider_stops_the_start(
    installed: None, monkeypatch: pytest.MonkeyPatch, name: str, settings: dict[str, Any], words: str
) -> None:
    monkeypatch.setattr(finding, "CHECK_S", 0.01)
    with pytest.raises(ProviderUnusable) as caught:
        await open_provider(name, settings)
    assert words in caught.value.reason
    assert "token=secret" not in caught.value.reason


def test_a_signature_is_of_the_time_and_the_body() -> None:
    secret, body = SECRET.encode(), b'{"id":"n1"}'
    good = sign(secret, 1_700_000_000, body)
    # openssl dgst -sha256 -hmac over "1700000000.{...}" gives the same.
    assert good.startswith("v1=") and len(good) == 67
    checked = {"now": 1_700_000_100.0}
    assert verify(secret, "1700000000", good, body, **checked)
    assert not verify(secret, "1700000001", good, body, **checked)
    assert not verify(secret, "1700000000", good, body + b" ", **checked)
    assert not verify(b"t" * 32, "1700000000", good, body, **checked)
    assert not verify(secret, "1700000000", good.upper(), body, **checked)
    assert not verify(secret, "1700000000", "", body, **checked)
    assert not verify(secret, "1700000000", "v1=\udcff", body, **checked)


@pytest.mark.parametrize("now", [1_700_000_301.0, 1_699_999_699.0])
def test_a_signature_is_good_for_five_minutes(now: float) -> None:
    good = sign(b"k" * 32, 1_700_000_000, b"")
    assert not verify(b"k" * 32, "1700000000", good, b"", now=now)
    assert verify(b"k" * 32, "1700000000", good, b"", now=now, tolerance_s=302)


@pytest.mark.parametrize("timestamp", ["", "-1", "1e9", "１７", "1" * 13, "0x10", "nan"])
def test_a_timestamp_is_digits(timestamp: str) -> None:
    assert not verify(b"k" * 32, timestamp, "v1=00", b"", now=0.0)


def test_the_signature_is_what_the_guide_says() -> None:
    """Computed with `printf '1700000000.{"id":"n1"}' | openssl dgst -sha256 -hmac ssss…`."""
    assert (
        sign(SECRET.encode(), 1_700_000_000, b'{"id":"n1"}')
        == "v1=e8480b7cd12776e7f9776e4d9925ca66909d2e75ada7b40faa78c1315b04f651"
    )


def test_a_reason_of_a_foreign_provider_is_safe_to_log_and_show() -> None:
    assert Refused("Bad token\r\nERROR x" + "y" * 100).reason == ("bad-token-error-x" + "y" * 100)[:64]
    assert Refused("").reason == "unknown"
