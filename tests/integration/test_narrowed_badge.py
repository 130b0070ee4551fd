"""Regression: a notification for one kind of device is an item of the person, but the other devices were not
told
that their badge had changed."""

from __future__ import annotations

import pytest

from support.clients import open_client
from support.node import ENGINES, running_node

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("batch", [False, True], ids=["single", "batch"])
async def test_other_devices_are_told_the_badge_of_a_narrowed_notification(engine: str, batch: bool) -> None:
    async with running_node(engine) as node:
        token = node.token()
        async with (
            await open_client("ws", node.port, token, device="mobile") as phone,
            await open_client("sse", node.port, token, device="desktop") as laptop,
        ):
            for client in (phone, laptop):
                await client.welcome()
            wanted = {"to": {"user": "alice"}, "title": "t", "id": "n1", "audience": {"devices": ["mobile"]}}
            path = "/v1/notifications" + ("/batch" if batch else "")
            answer = await node.http.post(
                path, json=[wanted] if batch else wanted, headers=node.auth("backend", "publisher")
            )
            assert answer.status_code in (200, 201), answer.text
            (got,) = await phone.publications(1)
            assert (got.body["event"], got.body["inbox"]["unread"]) == ("notification", 1)
            (told,) = await laptop.publications(1)
            assert told.body["event"] == "inbox"
            assert {**told.body["data"], "revision": None} == {
                "action": "added",
                "ids": ["n1"],
                "unread": 1,
                "unseen": 1,
                "revision": None,
            }
            assert told.body["data"]["revision"] == got.body["inbox"]["revision"]
