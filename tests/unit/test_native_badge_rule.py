"""PROTO-42 as code: a client that follows it has the right badge, whatever crosses on the way.

The server side is the model of an inbox; what is announced after a change may be overtaken by what is
published meanwhile, replies come when they like, and a part of the stream is delivered twice.
"""

from __future__ import annotations

import random
from typing import Any

import pytest


class Client:
    """The reference: `unread` and a revision, and whether it has to ask."""

    def __init__(self) -> None:
        self.unread = 0
        self.revision: tuple[int, int] | None = None
        self.ask = True

    def hear(self, badge: dict[str, Any]) -> None:
        if "tenant_revision" in badge:
            self._wide(badge["tenant_revision"])
        else:
            self._full(badge["unread"], badge["revision"])

    def _full(self, unread: int, revision: tuple[int, int]) -> None:
        own = self.revision
        if own is not None and revision[0] <= own[0] and revision[1] <= own[1]:
            return
        if own is not None and (revision[0] < own[0] or revision[1] < own[1]):
            self.ask = True
            return
        self.unread, self.revision = unread, revision

    def _wide(self, tenant: int) -> None:
        if self.revision is None or tenant <= self.revision[1]:
            return
        if tenant == self.revision[1] + 1:
            self.unread, self.revision = self.unread + 1, (self.revision[0], tenant)
        else:
            self.ask = True


class Inbox:
    """One user's counters. `stream` is the log; `late` are announcements and replies on their way."""

    def __init__(self, draw: random.Random) -> None:
        self.draw = draw
        self.unread = 0
        self.revision = (0, 0)
        self.stream: list[dict[str, Any]] = []
        self.late: list[dict[str, Any]] = []

    def badge(self) -> dict[str, Any]:
        return {"unread": self.unread, "revision": self.revision}

    def step(self) -> None:
        user, tenant = self.revision
        match self.draw.randrange(6):
            case 0:  # a notification: its badge is made in the append
                self.unread, self.revision = self.unread + 1, (user + 1, tenant)
                self.stream.append(self.badge())
            case 1:  # one for the whole tenant
                self.unread, self.revision = self.unread + 1, (user, tenant + 1)
                self.stream.append({"tenant_revision": tenant + 1})
            case 2:  # some are read: stored first, told later
                self.unread = self.draw.randrange(self.unread + 1)
                self.revision = (user + 1, tenant)
                self.late.append(self.badge())
            case 3:  # for the whole tenant, but not for this user: or taken back
                self.unread, self.revision = max(0, self.unread - 1), (user, tenant + 1)
                if self.draw.random() < 0.5:
                    self.stream.append({"tenant_revision": tenant + 2 if tenant % 2 else tenant})
            case _:
                if self.late:
                    self.stream.append(self.late.pop(self.draw.randrange(len(self.late))))


@pytest.mark.parametrize("seed", range(300))
def test_a_client_that_follows_the_rule_ends_with_the_right_badge(seed: int) -> None:
    draw = random.Random(seed)
    inbox, client = Inbox(draw), Client()
    heard = 0
    for _ in range(60):
        inbox.step()
        if client.ask and draw.random() < 0.5:
            client.ask = False
            client.hear(inbox.badge())
        if draw.random() < 0.5:
            for badge in inbox.stream[max(0, heard - draw.randrange(3)) :]:
                client.hear(badge)
            heard = len(inbox.stream)
    # Everything arrives; the last thing is an ordinary notification, or the client knows that it must ask.
    inbox.stream += inbox.late
    inbox.unread, inbox.revision = inbox.unread + 1, (inbox.revision[0] + 1, inbox.revision[1])
    inbox.stream.append(inbox.badge())
    for badge in inbox.stream[heard:]:
        client.hear(badge)
    assert client.ask or (client.unread, client.revision) == (inbox.unread, inbox.revision)


def test_a_change_and_a_tenant_wide_notification_that_cross_make_the_client_ask() -> None:
    client = Client()
    client.ask = False
    client.hear({"unread": 5, "revision": (12, 4)})
    client.hear({"tenant_revision": 5})
    assert (client.unread, client.revision) == (6, (12, 5))
    client.hear(
        {"unread": 4, "revision": (13, 4)}
    )  # was stored before the tenant-wide one, and told after it
    assert client.ask
    client.hear({"unread": 5, "revision": (13, 5)})
    assert (client.unread, client.revision) == (5, (13, 5))
