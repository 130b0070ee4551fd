"""The restart drill as a command, with any numbers: `python -m chaos.restart --clients 200 --seconds 20` in
`tests/`."""

from __future__ import annotations

import argparse
import asyncio
import tempfile
from pathlib import Path

from chaos.drill import SETTINGS, Disturbance, Drill, Outcome, Plan, run
from support.redis_server import RedisServer
from support.server_process import ServerProcess


def kills(server: ServerProcess, times: int) -> Disturbance:
    """kill -9 `times` times; the restart comes once publishers have felt it. After the first restart the
    server is killed once more while clients are coming back and catching up.
    """

    async def disturb(drill: Drill) -> None:
        for number in range(times):
            await drill.published()
            await drill.struck(server.kill)
            await drill.refused()
            await server.start()
            if number == 0:
                await drill.back(0.3)
                await drill.struck(server.kill)
                await drill.refused()
                await server.start()
            await drill.back(1)

    return disturb


async def restart_drill(engine: str, folder: Path, plan: Plan, times: int) -> Outcome:
    """kill -9 of the only server, `times` times and once more in between. Redis itself stays."""
    redis = RedisServer() if engine == "redis" else None
    try:
        if redis is not None:
            redis.start()
        server = ServerProcess(engine, folder, redis_url=redis.url if redis else "", settings=SETTINGS)
        async with server:
            return await run([server], plan, kills(server, times))
    finally:
        if redis is not None:
            redis.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--engine", choices=("sqlite", "redis"), default="sqlite")
    parser.add_argument("--clients", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--rate", type=float, default=100.0, help="publications a second")
    parser.add_argument("--kills", type=int, default=3)
    given = parser.parse_args()
    plan = Plan(
        clients=given.clients,
        users=max(1, given.clients // 8),
        publications=int(given.seconds * given.rate / (given.kills + 1)),
        rate=given.rate,
    )
    with tempfile.TemporaryDirectory() as folder:
        outcome = asyncio.run(restart_drill(given.engine, Path(folder), plan, given.kills))
    print(outcome.report(f"kill -9 of the server, {given.kills + 1} times, engine {given.engine}"))
    raise SystemExit(bool(outcome.account.faults or outcome.account.gaps))


if __name__ == "__main__":
    main()
