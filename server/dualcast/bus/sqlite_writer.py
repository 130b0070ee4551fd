"""The writer thread of the sqlite engine: group commit.

In: jobs from the event loop, a loop turn at a time. Out: callbacks on the loop, one per transaction, in
commit order. While a transaction runs, what comes in waits and becomes the next one.
"""

from __future__ import annotations

import asyncio
import logging
import sqlite3
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeVar

from dualcast.model.errors import BusUnavailable, DualcastError
from dualcast.model.publication import Draft, Quota, Receipt

from .sqlite_log import Answer, AppendLog, Fresh
from .sqlite_parts import Outcome, Work

TIDY_S = 1.0
T = TypeVar("T")

log = logging.getLogger("dualcast.bus.sqlite")
Results = list[Receipt | DualcastError]


class Job(NamedTuple):
    """Drafts to append, or other rooms' work, or neither: a durable write for the probe.

    `done` gets a result per draft, or the work's. `size` in bytes and `weight` in drafts are what it takes
    of the bounds.
    """

    drafts: Sequence[Draft]
    quota: Quota | None
    done: asyncio.Future[Any]
    size: int
    weight: int
    work: Work | None = None

    def settle(self, answer: Answer) -> None:
        """Gives the answer to whoever waits."""
        if self.done.done():
            return
        if not isinstance(answer, Outcome):
            self.done.set_result(answer)
        elif answer.error is None:
            self.done.set_result(answer.value)
        else:
            self.done.set_exception(answer.error)


class Committed(NamedTuple):
    """One transaction as the loop hears of it. `results` None: it failed."""

    jobs: list[Job]
    results: list[Answer] | None
    fresh: list[Fresh]


class Writer:
    """Owns the thread that owns the AppendLog. `committed` and `status` are called on the loop."""

    def __init__(
        self,
        append_log: AppendLog,
        loop: asyncio.AbstractEventLoop,
        *,
        committed: Callable[[Committed], None],
        status: Callable[[bool], None],
    ) -> None:
        self._log = append_log
        self._loop = loop
        self._committed = committed
        self._status = status
        self._ready = threading.Condition()
        self._jobs: list[Job] = []
        self._closing = False
        self._available = True
        self._ended: asyncio.Future[None] = loop.create_future()
        self.commits = 0
        self.failures = 0
        self._thread = threading.Thread(target=self._run, name="dualcast-bus-writer", daemon=True)
        self._thread.start()

    def submit(self, jobs: list[Job]) -> None:
        """Hands over the jobs of a loop turn."""
        with self._ready:
            self._jobs.extend(jobs)
            self._ready.notify()

    async def close(self) -> None:
        """Ends the thread after everything handed over has been committed or refused."""
        with self._ready:
            self._closing = True
            self._ready.notify()
        await self._ended
        self._thread.join()

    def _run(self) -> None:
        tidy_at = time.monotonic() + TIDY_S
        while True:
            with self._ready:
                if not self._jobs and not self._closing:
                    self._ready.wait(TIDY_S)
                jobs, self._jobs = self._jobs, []
                closing = self._closing
            if jobs:
                self._commit(jobs)
            elif closing:
                break
            if not closing and time.monotonic() >= tidy_at:
                self._tidy()
                tidy_at = time.monotonic() + TIDY_S
        self._post(self._ended.set_result, None)

    def _commit(self, jobs: list[Job]) -> None:
        try:
            if not self._available:
                self._log.rollback()
            if any(not job.weight for job in jobs):
                self._log.check()
            results, fresh = self._log.commit([(job.drafts, job.quota, job.work) for job in jobs])
        except sqlite3.Error as error:
            self._failed(error)
            self._post(self._committed, Committed(jobs, None, []))
        except Exception:
            # A draft that cannot be stored at all; the other publishers' must not fail with it.
            log.exception("a publication cannot be stored")
            self._rollback()
            if len(jobs) > 1:
                for job in jobs:
                    self._commit([job])
            else:
                refused = DualcastError("the publication cannot be stored")
                (job,) = jobs
                answer: Answer = Outcome(error=refused)
                if job.work is None:
                    answer = [refused for _ in job.drafts]
                self._post(self._committed, Committed(jobs, [answer], []))
        else:
            self.commits += 1
            self._recovered()
            self._post(self._committed, Committed(jobs, results, fresh))

    def _tidy(self) -> None:
        try:
            if not self._available:
                self._log.rollback()
                self._log.check()
            while self._log.tidy() and not self._jobs and not self._closing:
                pass
        except sqlite3.Error as error:
            self._failed(error)
        except Exception:
            # Whatever is wrong with forgetting must not end the thread that appends.
            log.exception("tidying the bus file failed")
            self._rollback()
        else:
            self._recovered()

    def _post(self, call: Callable[[T], None], value: T) -> None:
        try:
            self._loop.call_soon_threadsafe(call, value)
        except RuntimeError:
            # The loop ended without `close`: nobody is left to be told.
            self._closing = True

    def _rollback(self) -> None:
        try:
            self._log.rollback()
        except sqlite3.Error:
            # The next attempt begins with a rollback again, as long as we are not available.
            log.debug("rollback failed", exc_info=True)

    def _failed(self, error: Exception) -> None:
        self.failures += 1
        self._rollback()
        if self._available:
            self._available = False
            log.error("the bus file cannot be written: %s", error)
            self._post(self._status, False)

    def _recovered(self) -> None:
        if not self._available:
            self._available = True
            log.warning("the bus file can be written again")
            self._post(self._status, True)


def refuse(jobs: list[Job], reason: str) -> None:
    """Answers every job with BusUnavailable."""
    for job in jobs:
        if not job.done.done():
            job.done.set_exception(BusUnavailable(reason))
