"""The drill of devices: one user with a phone (WebSocket) and a laptop (SSE) at two nodes over one Redis.
As a command: `python -P -m chaos.devices` in `tests/`.

Every rule of routing, storing and pushing reaches exactly whom it says, reading on one device clears the
badge of the other, and when a node is killed presence is right within the lease.
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
import time
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from chaos.device_rig import Drill, Outcome, Plan, prepared
from support.redis_server import RedisServer

ALICE = {"user": "alice"}
EVERYBODY = ("phone", "laptop", "tablet", "desk")
GRACE_S = 0.5
"""What one flush and the way of a publication may add to the lease."""


async def routing(drill: Drill) -> None:
    """Every rule once; then everybody's copies are compared with who was meant."""
    phone, laptop = drill.devices["phone"].connection, drill.devices["laptop"].connection
    both = {"users": ["alice", "bob"]}
    tenant = {"all": True}
    rules: list[tuple[str, Mapping[str, Any], dict[str, Any], tuple[str, ...]]] = [
        ("to a user", ALICE, {}, ("phone", "laptop")),
        ("to two users", both, {}, ("phone", "laptop", "tablet")),
        ("mobile only", ALICE, {"audience": {"devices": ["mobile"]}}, ("phone",)),
        ("desktop only", ALICE, {"audience": {"devices": ["desktop"]}}, ("laptop",)),
        ("one connection (phone)", {"connection": phone}, {}, ("phone",)),
        ("one connection (laptop)", {"connection": laptop}, {}, ("laptop",)),
        ("all but the phone", ALICE, {"audience": {"exclude_connections": [phone]}}, ("laptop",)),
        ("all but the laptop", ALICE, {"audience": {"exclude_connections": [laptop]}}, ("phone",)),
        ("two users but alice", both, {"audience": {"exclude_users": ["alice"]}}, ("tablet",)),
        ("tenant but alice", tenant, {"audience": {"exclude_users": ["alice"]}}, ("tablet", "desk")),
        ("tenant, handhelds", tenant, {"audience": {"devices": ["mobile", "tablet"]}}, ("phone", "tablet")),
        ("tenant-wide", tenant, {}, EVERYBODY),
    ]
    for title, to, fields, _ in rules:
        await drill.notify(to, title, **fields)
    await drill.notify({"users": ["alice", "bob", "carol"]}, "fence", store=False)
    await drill.seen_by_all("fence", *EVERYBODY)
    for title, _, _, meant in rules:
        wanted = dict.fromkeys(meant, 1)
        got = {name: count for name in EVERYBODY if (count := drill.devices[name].titles[title])}
        drill.outcome.add(f"arrives: {title}", wanted, got)
    # One connection is nobody's inbox, and a tenant-wide one is for everybody or not kept.
    unkept = {"one connection (phone)", "one connection (laptop)", "tenant but alice", "two users but alice"}
    kept = [title for title, *_ in rules if title not in unkept]
    page = await drill.get("/v1/users/alice/notifications?limit=50", "alice")
    titles = sorted(item["title"] for item in page["notifications"])
    drill.outcome.add("alice's inbox", sorted(kept), titles)


async def reading(drill: Drill) -> None:
    """Reads on one device, and looks at the badge of the other. The devices take turns."""
    phone, laptop = drill.devices["phone"], drill.devices["laptop"]
    await phone.send("read", all=True)
    await drill.changes.until(lambda: phone.badge.unread == laptop.badge.unread == 0, "all read")
    took: list[float] = []
    for number in range(drill.plan.reads):
        title = f"read {number}"
        ident = await drill.notify(ALICE, title)
        await drill.seen_by_all(title, "phone", "laptop")
        badges = [(device.badge.unread, device.badge.unseen) for device in (phone, laptop)]
        if badges != [(1, 1)] * 2:
            drill.outcome.add(f"badges after {title}", [(1, 1)] * 2, badges)
            return
        reader, other = (phone, laptop) if number % 2 else (laptop, phone)
        start = time.monotonic()
        if reader is phone:
            await phone.send("read", ids=[ident])
        else:
            await drill.read_by_rest(laptop, [ident])
        await drill.changes.until(lambda other=other: other.badge.unread == 0, "the badge stays")  # type: ignore[misc]
        took.append(time.monotonic() - start)
        await drill.changes.until(lambda reader=reader: reader.badge.unread == 0, "its own badge stays")  # type: ignore[misc]
    took.sort()
    drill.outcome.within("read on one clears the other, median", drill.plan.badge_s, took[len(took) // 2])
    drill.outcome.within("read on one clears the other, slowest", drill.plan.badge_s, took[-1])
    counted = await drill.get("/v1/users/alice/unread-count", "alice")
    drill.outcome.add("unread over REST", 0, counted["unread"])


async def pushing(drill: Drill) -> None:
    """alice is on phone and laptop, carol on a desktop only, erin nowhere."""
    erin, carol, mobile = {"user": "erin"}, {"user": "carol"}, ["mobile"]
    rules: list[tuple[str, Mapping[str, Any], dict[str, Any], tuple[str, ...]]] = [
        ("offline user", erin, {"push": "offline"}, ("erin",)),
        ("offline user, never", erin, {}, ()),
        ("online user", ALICE, {"push": "offline"}, ()),
        ("online user, always", ALICE, {"push": "always"}, ("alice",)),
        ("phone is there", ALICE, {"push": "offline", "push_devices": mobile}, ()),
        ("no phone is there", carol, {"push": "offline", "push_devices": mobile}, ("carol",)),
        ("desktop is there", carol, {"push": "offline", "push_devices": ["desktop", "web"]}, ()),
        ("for phones only", carol, {"push": "offline", "audience": {"devices": mobile}}, ("carol",)),
        ("not stored", erin, {"push": "offline", "store": False}, ("erin",)),
        ("several", {"users": ["erin", "carol", "frank"]}, {"push": "offline"}, ("erin", "frank")),
        (
            "several but erin",
            {"users": ["erin", "frank"]},
            {"push": "offline", "audience": {"exclude_users": ["erin"]}},
            ("frank",),
        ),
    ]
    for title, to, fields, meant in rules:
        await drill.notify(to, "push: " + title, **fields)
        drill.pushed.update((user, "push: " + title) for user in meant)
    for _ in range(2):
        await drill.notify(erin, "push: repeated id", push="offline", id="repeated")
    drill.pushed["erin", "push: repeated id"] += 1
    await drill.changes.until(lambda: not drill.pushed - drill.receiver.pushes, "pushes do not come")
    for title, _, _, meant in rules:
        key = "push: " + title
        got = sorted(user for (user, pushed), _ in drill.receiver.pushes.items() if pushed == key)
        drill.outcome.add(key, sorted(meant), got)


async def death(drill: Drill) -> None:
    """kill -9 of node A, with alice's phone and bob's only device; node B is asked nothing until it tells."""
    lease, outcome = drill.plan.lease_s, drill.outcome
    desk, phone = drill.devices["desk"], drill.devices["phone"]
    before = len(desk.presence)
    drill.nodes[0].kill()
    start = time.monotonic()
    await drill.changes.until(lambda: any("bob" in one["left"] for one in desk.presence), "no leave comes")
    outcome.within("kill -9: bob's leave is told", lease + GRACE_S, time.monotonic() - start)
    online = [f"{user} {await drill.connections(user)}" for user in ("alice", "bob", "carol")]
    outcome.add("connections then", ["alice 1", "bob 0", "carol 1"], online)
    listed = await drill.get("/v1/connections?user=alice")
    outcome.add("alice's connections", ["laptop"], [one["device_id"] for one in listed["connections"]])
    gone = await drill.post(1, {"to": {"connection": phone.connection}, "title": "to the dead"})
    outcome.add("to the phone's connection", 404, gone.status_code)
    title = "while the phone is away"
    await drill.notify(ALICE, title, node=1, push="offline", push_devices=["mobile"])
    drill.pushed["alice", title] += 1
    await drill.seen_by_all(title, "laptop")
    await drill.changes.until(lambda: not drill.pushed - drill.receiver.pushes, "no push for the phone")
    await back(drill)
    await drill.seen_by_all(title, "phone")
    outcome.add("the phone catches up, once", 1, phone.titles[title])
    await drill.changes.until(
        lambda: any("bob" in one["joined"] for one in desk.presence[before:]), "no join"
    )
    told = [(one["joined"], one["left"], one["count"]) for one in desk.presence[before:]]
    outcome.add("told: joined, left, count", [([], ["bob"], 2), (["bob"], [], 3)], told)
    await drill.read_by_rest(drill.devices["laptop"], None)
    await drill.changes.until(lambda: phone.badge.unread == 0, "the phone's badge stays")
    outcome.add("the phone's badge, read on the laptop", 0, phone.badge.unread)


async def asked(drill: Drill) -> None:
    """kill -9 again; this time node B is asked all the while."""
    lease = drill.plan.lease_s
    absent = 0

    async def right() -> bool:
        nonlocal absent
        alice = await drill.connections("alice")
        absent += alice == 0
        return alice == 1 and await drill.connections("bob") == 0

    drill.nodes[0].kill()
    drill.outcome.within("kill -9: who asks is told right", lease, await drill.until(right, lease))
    drill.outcome.add("times alice was said to be offline", 0, absent)
    await back(drill)


async def back(drill: Drill) -> None:
    """Node A starts again, and its devices come back."""
    await drill.nodes[0].start()
    start = time.monotonic()
    for name in ("phone", "tablet"):
        await drill.devices[name].connect()
    await drill.until(drill.everybody_there, drill.plan.lease_s)
    drill.outcome.within("restart: everybody is there", 1.0, time.monotonic() - start)


async def devices_drill(folder: Path, plan: Plan) -> Outcome:
    """The whole drill over a Redis of its own."""
    begin = time.monotonic()
    with RedisServer() as redis:
        async with prepared(folder, redis.url, plan) as drill:
            desk = drill.devices["desk"]
            joined = Counter(name for one in desk.presence for name in one["joined"])
            drill.outcome.add("alice's second device is not announced", 1, joined["alice"])
            await routing(drill)
            await reading(drill)
            await pushing(drill)
            await death(drill)
            await asked(drill)
            drill.outcome.add("pushes in all, exactly", dict(drill.pushed), dict(drill.receiver.pushes))
            drill.outcome.add("pushes with a wrong signature", 0, drill.receiver.forged)
            ended = {name: device.ended for name, device in drill.devices.items()}
            drill.outcome.add("connections lost", {"desk": 0, "phone": 2, "laptop": 0, "tablet": 2}, ended)
            refused = [error for device in drill.devices.values() for error in device.errors]
            drill.outcome.add("commands refused", [], refused)
    drill.outcome.seconds = time.monotonic() - begin
    return drill.outcome


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--lease", type=float, default=30.0, help="presence.lease_s of the nodes")
    parser.add_argument("--reads", type=int, default=40, help="markings to measure")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        outcome = asyncio.run(devices_drill(Path(folder), Plan(lease_s=given.lease, reads=given.reads)))
    print(f"\ntwo nodes, phone and laptop, kill -9 of one\n{outcome.table()}")
    raise SystemExit(bool(outcome.wrong))


if __name__ == "__main__":
    main()
