"""The redis engine on a bad line. Every publication is accounted for: fed once and in order, or announced
as lost.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator

import pytest

from dualcast.model.publication import Gap, Receipt
from support.bus_engines import draft, watch
from support.flaky_proxy import FlakyProxy
from support.redis_nodes import Node, node
from support.redis_server import shared

pytestmark = pytest.mark.anyio


@pytest.fixture
def tenant() -> str:
    return "t-" + secrets.token_hex(5)


@pytest.fixture
async def proxy(anyio_backend: object) -> AsyncIterator[FlakyProxy]:
    proxy = FlakyProxy(shared().socket)
    await proxy.start()
    yield proxy
    await proxy.close()


@pytest.fixture
async def sender() -> AsyncIterator[Node]:
    """A node on the shared server whose line is good."""
    async with node(shared().url) as sender:
        yield sender


async def test_publications_while_the_subscriber_is_away(
    proxy: FlakyProxy, sender: Node, tenant: str
) -> None:
    async with node(proxy.url) as victim:
        await watch(victim.bus, victim.recorder, tenant, "all", "user:a")
        await sender.bus.append(draft(tenant, id="before"))
        await victim.fed(tenant, ["before"])
        proxy.refuse = True
        proxy.cut_all()
        await victim.status(False)
        ids = [f"m{n}" for n in range(1200)]
        await sender.bus.append_many(
            [draft(tenant, ["all", "user:a", "user:b"][n % 3], id=ident) for n, ident in enumerate(ids)]
        )
        proxy.refuse = False
        await victim.status(True)
        due = ["before", *(ident for n, ident in enumerate(ids) if n % 3 != 2)]
        await victim.fed(tenant, due)
        await sender.bus.append(draft(tenant, id="after"))
        await victim.fed(tenant, [*due, "after"])
        assert victim.recorder.named("gap") == []
        assert victim.statuses == [False, True]


async def test_client_kill_under_load_loses_nothing(sender: Node, tenant: str) -> None:
    channels = [f"user:{n}" for n in range(7)]
    async with node(shared().url) as victim:
        await watch(victim.bus, victim.recorder, tenant, *channels)
        sent: list[tuple[int, str]] = []

        async def publish() -> None:
            for n in range(600):
                receipt = await sender.bus.append(
                    draft(tenant, channels[n % 7], channels[(n + 3) % 7], id=str(n))
                )
                sent.append((receipt.offset, receipt.id))

        publishing = asyncio.ensure_future(publish())
        while not publishing.done():
            before = victim.bus.stats()["resubscribes"]
            shared().command("CLIENT", "KILL", "TYPE", "pubsub")
            await victim.recorder.until(
                lambda before=before: (
                    victim.bus.stats()["resubscribes"] > before  # type: ignore[misc]
                    and victim.statuses[-1]
                )
            )
        await publishing
        await victim.recorder.until(lambda: len(victim.recorder.of(tenant)) >= 1200)
        assert victim.offsets(tenant) == sorted([offset for offset, _ in sent] * 2)
        assert victim.recorder.named("gap") == []


async def test_a_hole_in_the_chain_is_read_before_what_follows(
    proxy: FlakyProxy, sender: Node, tenant: str
) -> None:
    async with node(proxy.url) as victim:
        await watch(victim.bus, victim.recorder, tenant, "all")
        await sender.bus.append(draft(tenant, id="one"))
        await victim.fed(tenant, ["one"])
        proxy.swallow = b"lost-one"
        await sender.bus.append(draft(tenant, id="lost-one"))
        await proxy.happened.wait()
        await sender.bus.append(draft(tenant, id="three"))
        await victim.fed(tenant, ["one", "lost-one", "three"])
        assert victim.bus.stats()["mismatches"] == 1
        assert victim.recorder.named("gap") == []


async def test_the_probe_finds_a_lost_last_message(proxy: FlakyProxy, sender: Node, tenant: str) -> None:
    async with node(proxy.url) as victim:
        await watch(victim.bus, victim.recorder, tenant, "all", "user:quiet")
        await sender.bus.append(draft(tenant, id="one"))
        await victim.fed(tenant, ["one"])
        proxy.swallow = b"lost-one"
        receipt = await sender.bus.append(draft(tenant, "user:quiet", id="lost-one"))
        await proxy.happened.wait()
        await victim.bus.probe()
        await victim.fed(tenant, ["one", "lost-one"])
        await victim.recorder.until(
            lambda: (receipt.epoch, receipt.offset) in victim.recorder.named("advanced", tenant)
        )
        assert victim.bus.stats()["probe_found_lost"] == 1


async def test_the_background_probe_finds_it_too(proxy: FlakyProxy, sender: Node, tenant: str) -> None:
    async with node(proxy.url, probe_every_s=0.1) as victim:
        await watch(victim.bus, victim.recorder, tenant, "all")
        proxy.swallow = b"lost-one"
        await sender.bus.append(draft(tenant, id="lost-one"))
        await victim.fed(tenant, ["lost-one"])


async def test_what_is_found_too_late_for_the_order_is_a_gap(
    proxy: FlakyProxy, sender: Node, tenant: str
) -> None:
    async with node(proxy.url) as victim:
        await watch(victim.bus, victim.recorder, tenant, "all", "user:a")
        proxy.swallow = b"lost-one"
        lost = await sender.bus.append(draft(tenant, "user:a", id="lost-one"))
        await proxy.happened.wait()
        await sender.bus.append(draft(tenant, id="two"))
        await victim.fed(tenant, ["two"])
        await victim.bus.probe()
        await victim.recorder.until(lambda: bool(victim.recorder.named("gap")))
        assert victim.recorder.named("gap", tenant) == [(Gap("user:a", 0, lost.offset + 1, "late"),)]
        await sender.bus.append(draft(tenant, "user:a", id="three"))
        await victim.fed(tenant, ["two", "three"])


async def test_a_hole_that_was_trimmed_is_announced(proxy: FlakyProxy, sender: Node, tenant: str) -> None:
    async with node(proxy.url) as victim:
        await watch(victim.bus, victim.recorder, tenant, "all")
        await sender.bus.append(draft(tenant, id="one"))
        await victim.fed(tenant, ["one"])
        proxy.refuse = True
        proxy.cut_all()
        await victim.status(False)
        ids = [f"m{n}" for n in range(10)]
        await sender.bus.append_many([draft(tenant, id=ident) for ident in ids])
        shared().command("XTRIM", f"dc:{{{tenant}}}:s:all", "MAXLEN", 3)
        proxy.refuse = False
        await victim.fed(tenant, ["one", *ids[-3:]])
        assert victim.recorder.named("gap", tenant) == [(Gap("all", 1, 9),)]


async def test_a_reply_lost_on_the_way_is_no_second_publication(proxy: FlakyProxy, tenant: str) -> None:
    async with node(proxy.url) as victim:
        await watch(victim.bus, victim.recorder, tenant, "all")
        first = await victim.bus.append(draft(tenant, id="first"))
        proxy.cut_on = b"lost-reply"
        receipt = await victim.bus.append(draft(tenant, id="lost-reply"))
        assert proxy.cuts == 1
        assert receipt == Receipt(first.epoch, 2, "lost-reply")
        assert victim.bus.stats()["retries"] >= 1
        proxy.cut_on = b"item-17"
        results = await victim.bus.append_many(
            [draft(tenant, id=f"item-{n % 40}") for n in range(45)] + [draft(tenant, id="last")]
        )
        assert proxy.cuts == 2
        assert [r.offset for r in results if isinstance(r, Receipt)] == [*range(3, 43), *range(3, 8), 43]
        assert [r.duplicate for r in results if isinstance(r, Receipt)] == [False] * 40 + [True] * 5 + [False]
        assert (await victim.bus.head(tenant)).offset == 43
        due = ["first", "lost-reply", *(f"item-{n}" for n in range(40)), "last"]
        await victim.fed(tenant, due)


async def test_held_messages_are_bounded(proxy: FlakyProxy, sender: Node, tenant: str) -> None:
    bound = 10_000
    async with node(proxy.url, held_bytes=bound) as victim:
        await watch(victim.bus, victim.recorder, tenant, "all")
        repair = victim.bus._repair
        assert repair is not None
        go = asyncio.Event()
        settle = repair.settle

        async def slow(*arguments: object) -> bool:
            await go.wait()
            return await settle(*arguments)  # type: ignore[arg-type]

        repair.settle = slow  # type: ignore[method-assign, assignment]
        proxy.swallow = b"lost-one"
        await sender.bus.append(draft(tenant, id="lost-one"))
        await proxy.happened.wait()
        ids = [f"m{n}" for n in range(900)]
        for start in range(0, 900, 100):
            await sender.bus.append_many(
                [draft(tenant, id=ident, data=b"[%s]" % (b"1" * 100)) for ident in ids[start : start + 100]]
            )
            assert victim.bus.stats()["held_bytes"] <= bound
        while victim.bus.stats()["received"] < 900:
            assert victim.bus.stats()["held_bytes"] <= bound
            await asyncio.sleep(0)
        assert victim.bus.stats()["held_overflows"] >= 5
        go.set()
        await victim.fed(tenant, ["lost-one", *ids])
        await victim.recorder.until(lambda: victim.bus.stats()["held_bytes"] == 0)
        assert victim.recorder.named("gap") == []
