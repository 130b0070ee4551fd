"""Sessions say when they come, go and change their channels; connect requests say what device they are."""

from __future__ import annotations

from typing import Any, cast

import pytest

from dualcast.model.errors import BadRequest
from dualcast.model.principal import Principal
from dualcast.presence.devices import check_device_id, check_kind, check_name
from dualcast.presence.ledger import Ledger, Tracked, facts_of, groups_of
from dualcast.presence.port import PresenceSettings
from support.engine_room import room
from support.model_bus import TENANT

pytestmark = pytest.mark.anyio


class Heard:
    """A Presence that remembers."""

    def __init__(self) -> None:
        self.told: list[tuple[str, bool]] = []

    def changed(self, session: Any) -> None:
        self.told.append((session.id, session.closed))

    def take(self) -> int:
        told, self.told = self.told, []
        return len(told)


async def test_a_session_is_heard_of_when_it_comes_changes_and_goes() -> None:
    async with room() as r:
        heard = r.node.presence = Heard()
        session, _ = r.open("user:u", "all")
        assert heard.take() == 1
        r.hub.channel(TENANT, "presence:x")
        r.bus.confirm()
        session.subscribe([r.hub.channel(TENANT, "presence:x")])
        assert heard.take() == 1 and groups_of(session) == ("presence:x",)
        session.unsubscribe(["presence:x"])
        assert heard.take() == 1 and groups_of(session) == ()
        session.connection_lost(None)
        assert heard.take() == 1
        session.connection_lost(None)
        assert heard.take() == 0, "once"


async def test_what_presence_knows_of_a_session() -> None:
    async with room() as r:
        session, _ = r.open("user:u", "all", device="mobile", device_id="phone", instance="tab")
        known = facts_of(session, r.node.id, 1_000.0 - session.attached_at)
        assert (known.id, known.user, known.node) == (session.id, "u", r.node.id)
        assert (known.device, known.device_id, known.instance) == ("mobile", "phone", "tab")
        assert (known.transport, known.dialect, known.connected_ms) == ("ws", "native", 1_000_000)


async def test_a_node_without_presence_tells_nobody() -> None:
    async with room() as r:
        session, _ = r.open("user:u", "all")
        session.connection_lost(None)
        assert session.closed and not r.hub.sessions


@pytest.mark.parametrize("text", ["phone", "Mobile", "desk", " web", "mobile\n", ""])
def test_unknown_device_kinds_are_refused_in_clear_words(text: str) -> None:
    with pytest.raises(BadRequest) as refused:
        check_kind(text)
    assert (refused.value.code, refused.value.status) == ("bad-device", 400)
    assert "mobile, desktop, tablet, web" in refused.value.reason


@pytest.mark.parametrize("text", ["", "x" * 129, "a\nb", "a\x00", "\u202e", "a\u2028"])
def test_device_ids_are_printable(text: str) -> None:
    with pytest.raises(BadRequest) as refused:
        check_device_id(text)
    assert refused.value.code == "bad-id"


def test_device_ids_and_names_may_be_in_any_script() -> None:
    assert check_device_id("Pixel 8 – 李雷") == "Pixel 8 – 李雷"
    assert check_name("") == ""


def test_a_batch_is_bounded_in_memberships() -> None:
    settings = PresenceSettings(batch=500, batch_groups=10)
    ledger = Ledger("t")
    for n in range(5):
        session = type("S", (), {})()
        session.id, session.closed, session.principal = f"n-{n}", False, Principal("t", f"u{n}")
        session.device = session.device_id = session.instance = ""
        session.attached_at = 0.0
        session.encoding = type("E", (), {"transport": "ws"})
        session.dialect = type("D", (), {"name": "native"})
        session.channels = [type("F", (), {"name": f"presence:{i}"}) for i in range(4)]
        ledger.mark(cast(Tracked, session))
    sizes = []
    while (batch := ledger.next_batch(settings, "n", 0.0)) is not None:
        sizes.append(len(batch.joins))
    assert sizes == [2, 2, 1] and not ledger.pending and not ledger.idle
