"""What is stored with a notification, who is pushed, and what is refused: the table at the top of
`publishing.riders`.
"""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dualcast.model.inbox import InboxRider
from dualcast.model.principal import Principal
from dualcast.model.publication import Draft
from dualcast.model.push import decode_push
from dualcast.publishing.drafts import Drafter
from dualcast.publishing.payload import Invalid, decode
from dualcast.publishing.requests import NotificationRequest, PublishRequest

_notify = msgspec.json.Decoder(NotificationRequest)
_publish = msgspec.json.Decoder(PublishRequest)
CALLER = Principal("t", "backend")
ALICE = {"user": "alice"}


def draft(to: dict[str, Any], *, default_push: Any = "never", owner: str = "alice", **fields: Any) -> Draft:
    body = msgspec.json.encode({"to": to, "title": "Hello", **fields})
    drafter = Drafter(65_536, default_push=default_push)
    return drafter.draft(CALLER, decode(body, _notify), now_ms=1_000, connection_user=owner)


def refused(to: dict[str, Any], **fields: Any) -> tuple[str, str]:
    """(code, blamed path) of a refusal."""
    with pytest.raises(Invalid) as caught:
        draft(to, **fields)
    assert caught.value.status == 422
    assert caught.value.reason
    ((path, _),) = caught.value.errors
    return caught.value.code, path


STORED: list[tuple[dict[str, Any], dict[str, Any] | None, InboxRider | None]] = [
    (ALICE, None, InboxRider(("alice",), False, "system")),
    ({"users": ["a", "b", "a"]}, None, InboxRider(("a", "b"), False, "system")),
    ({"channel": "user:a"}, None, InboxRider(("a",), False, "system")),
    ({"channels": ["user:a", "topic:x"]}, None, InboxRider(("a",), False, "system")),
    ({"all": True}, None, InboxRider((), True, "system")),
    ({"channels": ["user:a", "all"]}, None, InboxRider((), True, "system")),
    ({"channel": "topic:x"}, None, None),
    ({"connection": "c1"}, None, None),
    # who is excluded gets no item
    ({"users": ["a", "b"]}, {"exclude_users": ["b"]}, InboxRider(("a",), False, "system")),
    ({"users": ["a", "b"]}, {"users": ["b", "z"]}, InboxRider(("b",), False, "system")),
    ({"users": ["a", "b"]}, {"users": ["a", "b"], "exclude_users": ["a", "b"]}, None),
    (ALICE, {"users": []}, None),
    # an inbox is the person's, not the device's
    (ALICE, {"devices": ["mobile"]}, InboxRider(("alice",), False, "system")),
    (ALICE, {"exclude_connections": ["c1"]}, InboxRider(("alice",), False, "system")),
    ({"all": True}, {"devices": ["web"]}, InboxRider((), True, "system")),
    # who it is for is known of connected people only
    (ALICE, {"roles": ["admin"]}, None),
    (ALICE, {"connections": ["c1"]}, None),
    ({"all": True}, {"roles": ["admin"]}, None),
    ({"all": True}, {"exclude_users": ["a"]}, None),
    ({"all": True}, {"users": ["a"]}, None),
]


@pytest.mark.parametrize(("to", "audience", "wanted"), STORED, ids=range(len(STORED)))
def test_where_it_can_be_stored_it_is(
    to: dict[str, Any], audience: dict[str, Any] | None, wanted: InboxRider | None
) -> None:
    fields = {} if audience is None else {"audience": audience}
    assert draft(to, **fields).inbox == wanted
    assert draft(to, store=False, **fields).inbox is None


REFUSED: list[tuple[dict[str, Any], dict[str, Any] | None, str]] = [
    ({"channel": "topic:x"}, None, "$.to"),
    ({"channels": ["user:a", "topic:x"]}, None, "$.to"),
    ({"connection": "c1"}, None, "$.to.connection"),
    (ALICE, {"roles": ["admin"]}, "$.audience.roles"),
    (ALICE, {"connections": ["c1"]}, "$.audience.connections"),
    ({"all": True}, {"users": ["a"]}, "$.audience.users"),
    ({"all": True}, {"users": []}, "$.audience.users"),
    ({"all": True}, {"exclude_users": ["a"]}, "$.audience.exclude_users"),
    ({"all": True}, {"roles": ["admin"]}, "$.audience.roles"),
]


@pytest.mark.parametrize(("to", "audience", "path"), REFUSED, ids=range(len(REFUSED)))
def test_storing_that_is_demanded_and_cannot_be_is_refused(
    to: dict[str, Any], audience: dict[str, Any] | None, path: str
) -> None:
    fields = {} if audience is None else {"audience": audience}
    assert refused(to, store=True, **fields) == ("bad-store", path)


def test_demanded_storing_is_the_same_where_it_can_be() -> None:
    for to, audience, wanted in STORED:
        if wanted is not None and to not in ({"channels": ["user:a", "topic:x"]},):
            fields = {} if audience is None else {"audience": audience}
            assert draft(to, store=True, **fields).inbox == wanted


def test_the_kind_goes_along_and_whoever_is_reached_twice_gets_the_tenant_wide_copy() -> None:
    found = draft({"channels": ["user:a", "all"]}, type="alert")
    assert found.inbox == InboxRider((), True, "alert")
    assert found.channels == ("all", "user:a")


@given(
    st.lists(st.sampled_from("abcdef"), min_size=1, max_size=6),
    st.none() | st.lists(st.sampled_from("abcdef"), max_size=4),
    st.lists(st.sampled_from("abcdef"), max_size=4),
)
def test_whoever_has_an_item_is_due_the_live_copy_and_the_other_way_round(
    users: list[str], only: list[str] | None, without: list[str]
) -> None:
    audience = {"exclude_users": without} | ({} if only is None else {"users": only})
    found = draft({"users": users}, audience=audience, push="always")
    due = {user for user in users if (only is None or user in only) and user not in without}
    assert (set(found.inbox.users) if found.inbox else set()) == due
    assert (set(found.push.users) if found.push else set()) == due
    for rider in (found.inbox, found.push):
        assert rider is None or {f"user:{user}" for user in rider.users} <= set(found.channels)


def test_a_push_says_what_a_phone_shows() -> None:
    found = draft(
        ALICE,
        content="x" * 60,
        type="alert",
        link="/a",
        priority="high",
        data={"n": 1},
        ttl_s=5,
        id="n1",
        push="offline",
    )
    assert found.push is not None
    assert (found.push.users, found.push.always, found.push.devices) == (("alice",), False, ())
    assert found.push.deadline_ms == 6_000
    message = decode_push(found.push.message)
    assert (message.id, message.title, message.priority) == ("n1", "Hello", "high")
    assert message.text == "x" * 50 + "..."
    assert json.loads(bytes(message.data)) == {"type": "alert", "link": "/a", "data": {"n": 1}}


def test_data_too_big_for_a_push_is_left_out_of_it() -> None:
    found = draft(ALICE, data={"n": "x" * 3000}, push="always")
    assert found.push is not None and found.push.always
    assert json.loads(bytes(decode_push(found.push.message).data)) == {"type": "system"}
    assert b"x" * 3000 in found.data


def test_the_default_policy_pushes_to_users_only_and_never_refuses() -> None:
    assert draft(ALICE).push is None
    assert draft(ALICE, default_push="offline").push is not None
    always = draft(ALICE, default_push="always").push
    assert always is not None and always.always
    assert draft(ALICE, default_push="offline", push="never").push is None
    for to in ({"all": True}, {"channel": "topic:x"}, {"connection": "c1"}):
        assert draft(to, default_push="offline").push is None
    mixed = draft({"channels": ["user:a", "topic:x"]}, default_push="offline").push
    assert mixed is not None and mixed.users == ("a",)
    assert draft(ALICE, default_push="offline", audience={"roles": ["admin"]}).push is None


@pytest.mark.parametrize("policy", ["offline", "always"])
@pytest.mark.parametrize(
    ("to", "audience", "path"),
    [
        ({"all": True}, None, "$.to"),
        ({"channel": "topic:x"}, None, "$.to"),
        ({"channels": ["user:a", "topic:x"]}, None, "$.to"),
        ({"channels": ["user:a", "all"]}, None, "$.to"),
        ({"connection": "c1"}, None, "$.to.connection"),
        (ALICE, {"roles": ["admin"]}, "$.audience.roles"),
        (ALICE, {"connections": ["c1"]}, "$.audience.connections"),
    ],
)
def test_a_push_that_is_demanded_and_cannot_be_is_refused(
    policy: str, to: dict[str, Any], audience: dict[str, Any] | None, path: str
) -> None:
    fields = {} if audience is None else {"audience": audience}
    assert refused(to, push=policy, **fields) == ("bad-push", path)


def test_which_connections_make_a_push_needless() -> None:
    def devices(**fields: Any) -> tuple[tuple[str, ...], tuple[str, ...]]:
        rider = draft(ALICE, push="offline", **fields).push
        assert rider is not None
        return rider.devices, decode_push(rider.message).devices

    assert devices() == ((), ())
    assert devices(push_devices=["mobile", "mobile"]) == (("mobile",), ())
    # A desktop that is connected does not get a copy for phones, so it makes no push needless either.
    assert devices(audience={"devices": ["mobile"]}) == (("mobile",), ("mobile",))
    assert devices(audience={"devices": ["mobile", "tablet"]}, push_devices=["web"]) == (
        ("web",),
        ("mobile", "tablet"),
    )


def test_without_store_it_is_pushed_all_the_same() -> None:
    found = draft(ALICE, store=False, push="offline")
    assert found.inbox is None and found.push is not None


@pytest.mark.parametrize(
    ("fields", "path"),
    [
        ({"audience": {"devices": ["mobile", "phone"]}}, "$.audience.devices[1]"),
        ({"push_devices": ["watch"]}, "$.push_devices[0]"),
    ],
)
def test_unknown_device_kinds_are_refused_by_their_place(fields: dict[str, Any], path: str) -> None:
    assert refused(ALICE, **fields) == ("bad-device", path)


def test_one_connection_narrows_any_audience_and_takes_no_other() -> None:
    found = draft({"connection": "c1"}, owner="bob", audience={"devices": ["web"]})
    assert found.channels == ("user:bob",)
    assert found.audience is not None
    assert (found.audience.connections, found.audience.devices) == (("c1",), ("web",))
    assert refused({"connection": "c1"}, audience={"connections": ["c2"]})[0] == "bad-target"
    assert refused({"connection": "c1", "user": "a"})[0] == "bad-target"


def test_two_connections_of_one_user_are_different_requests() -> None:
    first = draft({"connection": "c1"}, id="n1")
    second = draft({"connection": "c2"}, id="n1")
    assert first.channels == second.channels
    assert first.fingerprint != second.fingerprint


def test_a_publication_has_no_riders() -> None:
    body = decode(b'{"channel":"user:a","type":"t"}', _publish)
    found = Drafter(65_536, default_push="always").draft(CALLER, body)
    assert found.inbox is None and found.push is None
    for field in (b'"store":true', b'"push":"always"'):
        with pytest.raises(Invalid):
            decode(b'{"channel":"user:a","type":"t",' + field + b"}", _publish)
