"""A worker: takes jobs from a channel and tells how far it is, so that their owners see a progress bar.

A job is a publication of type `job` on `topic:jobs` with `{"owner": "<user>", "steps": 1 to 100}`. The task
has the publication's id: a job that comes again, because this program ended in the middle of it, is the same
task.
"""

import argparse
import asyncio
import contextlib
import logging
import signal
import sys
from pathlib import Path
from typing import Any

from dualcast_client import (
    AsyncClient,
    DualcastError,
    FileCursorStore,
    GapError,
    Published,
    TaskRegistration,
    TaskReport,
)

CHANNEL = "topic:jobs"
MAX_STEPS = 100
FINAL = {"completed", "failed", "cancelled"}

log = logging.getLogger("worker")


def read(data: Any) -> tuple[str, int] | None:
    """Owner and steps of a job, or None: whoever may publish decides what is in it."""
    if not isinstance(data, dict):
        return None
    owner, steps = data.get("owner"), data.get("steps")
    if isinstance(owner, str) and owner and type(steps) is int and 1 <= steps <= MAX_STEPS:
        return owner, steps
    return None


async def done(client: AsyncClient, task_id: str) -> bool:
    """Whether the task has ended already."""
    try:
        return (await client.task(task_id)).state in FINAL
    except DualcastError as error:
        if error.status == 404:
            return False
        raise


async def work(client: AsyncClient, job: Published, step_s: float) -> None:
    """Does one job. Raises DualcastError when its progress cannot be told."""
    asked = read(job.data)
    if asked is None or await done(client, job.id):
        log.info("job %s: nothing to do", job.id)
        return
    owner, steps = asked
    await client.register_task(job.id, TaskRegistration(owner=owner, kind="job", total_steps=steps))
    for step in range(1, steps + 1):
        await asyncio.sleep(step_s)  # here the work would be
        report = TaskReport(step=step, total_steps=steps, message=f"step {step} of {steps}")
        await client.report_task(job.id, report)
    await client.report_task(job.id, TaskReport(state="completed", result={"steps": steps}))
    log.info("job %s: completed", job.id)


async def main(given: argparse.Namespace) -> None:
    """Until it is cancelled. What was begun then is begun again by the next start."""

    def token() -> str:
        # Read again when the server refuses the last one: whoever renews tokens writes a new file.
        return Path(given.token_file).read_text(encoding="utf-8").strip()

    async with (
        AsyncClient(given.url, get_token=token) as client,
        client.subscribe([CHANNEL], store=FileCursorStore(given.position)) as stream,
    ):
        log.info("waiting for jobs")
        while True:
            try:
                async for publication in stream:
                    if publication.channel == CHANNEL and publication.event == "job":
                        await work(client, publication, given.step_s)
            except GapError as error:
                log.warning("jobs were missed: %s", error.gap.reason)


async def until_told(given: argparse.Namespace) -> None:
    """Until SIGTERM or Ctrl-C."""
    running = asyncio.ensure_future(main(given))
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, running.cancel)
    with contextlib.suppress(asyncio.CancelledError):
        await running


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Does the jobs of a channel.")
    parser.add_argument("--url", default="http://localhost:8000")
    parser.add_argument("--token-file", required=True, help="a JWT: role publisher, channels topic:jobs")
    parser.add_argument("--position", default="worker.position", help="file of the position")
    parser.add_argument("--step-s", type=float, default=0.5, help="how long a step takes")
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        asyncio.run(until_told(parser.parse_args()))
    except (DualcastError, OSError) as error:  # the token is refused, or there is no such file
        sys.exit(f"the worker has ended: {error}")
