"""`AsyncClient`: everything a program can say to dualcast, over one pool of HTTP connections, for asyncio.

Every publication carries an id of its own that stays the same over all repetitions, so it is published once,
whichever answers are lost. All calls raise DualcastError.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from types import TracebackType
from typing import Any, Self, TypeVar, Unpack

import httpx

from . import answers, bodies, calls, flows
from .admin import AsyncAdmin
from .common import Common, checked_token, failed, request_of
from .flow import Answer, Ask, Call, Flow, Retries, Send, Sleep, Step, perform
from .history import HistoryPage, history
from .inbox import AsyncInbox
from .stream import Stream
from .wanted import Backend, Options, wanted

T = TypeVar("T")


class AsyncClient(Common):
    """For asyncio. `async with AsyncClient("https://push.example", token) as client: …`, or `aclose()`.

    `token`: a JWT with role `publisher` (some calls: `admin`), or a function that gives one, plain or
    awaitable (also as `get_token`); it is asked again when the server refuses what it gave, and before that
    expires while something is subscribed. `timeout_s`: of each of connecting, sending and waiting for data,
    per attempt. `retries`: how often, or `Retries`. `transport`: for tests.
    """

    def __init__(
        self,
        base_url: str,
        token: str | Callable[[], str | Awaitable[str]] = "",
        *,
        get_token: Callable[[], str | Awaitable[str]] | None = None,
        timeout_s: float = 10.0,
        retries: int | Retries = 4,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        if not isinstance(token, str):
            get_token = token
            token = ""
        super().__init__(base_url, get_token is not None, timeout_s, retries)
        self._token = checked_token(token) if token or get_token is None else ""
        self._get_token = get_token
        self._turn = asyncio.Lock()
        self._http = httpx.AsyncClient(transport=transport, **self.options())

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    def use_token(self, token: str) -> None:
        """Another token, from the next request on."""
        self._token = checked_token(token)

    async def aclose(self) -> None:
        """Closes the connections."""
        await self._http.aclose()

    # ── publishing ──

    async def notify(self, notification: bodies.Notification) -> answers.Receipt:
        """Something a person should see: stored, delivered, and pushed where that is asked for."""
        return await self.call(calls.notify(notification))

    async def notify_many(
        self, notifications: Sequence[bodies.Notification]
    ) -> tuple[answers.ItemResult, ...]:
        """Many in few requests; a result for each, in order. Only a whole batch that fails raises."""
        return await self.run(flows.notify_many(self.policy, notifications))

    async def publish(self, publication: bodies.Publication) -> answers.Receipt:
        """An event of any type to any channels."""
        return await self.call(calls.publish(publication))

    # ── subscribing ──

    def subscribe(self, channels: Iterable[str] = (), **options: Unpack[Options]) -> Stream:
        """What is published on `channels`, to the token's user and to all, over every break:
        `async with client.subscribe(["topic:a"]) as stream: async for publication in stream: …`. The options
        are those of `wanted.wanted`. A stream lives as long as its `async with`, not as its client.
        """
        backend = Backend(self.base_url, self.policy, self.run, self.use_token)
        return Stream(backend, wanted(channels, **options))

    async def history(self, channel: str, after: str = "", limit: int = 100) -> HistoryPage:
        """What was published on a channel, oldest first."""
        return await self.call(history(channel, after, limit))

    # ── inbox and administration ──

    def inbox(self, user: str) -> AsyncInbox:
        """What is stored for a user."""
        return AsyncInbox(self.call, user)

    @property
    def admin(self) -> AsyncAdmin:
        """Tenants, migration, grants, connections, revocations."""
        return AsyncAdmin(self.call)

    # ── tasks ──

    async def register_task(self, task_id: str, registration: bodies.TaskRegistration) -> answers.Task:
        """Makes a task known with its owner, who may follow it."""
        return await self.call(calls.register_task(task_id, registration))

    async def report_task(self, task_id: str, report: bodies.TaskReport) -> answers.Task:
        """Progress, or the end."""
        return await self.call(calls.report_task(task_id, report))

    async def cancel_task(self, task_id: str) -> answers.Task:
        """Finishes a task as `cancelled`."""
        return await self.call(calls.cancel_task(task_id))

    async def task(self, task_id: str) -> answers.Task:
        """The last known state."""
        return await self.call(calls.task(task_id))

    async def register_batch(self, batch_id: str, registration: bodies.BatchRegistration) -> answers.Batch:
        """Makes a batch of tasks known with its owner; tasks join by naming it."""
        return await self.call(calls.register_batch(batch_id, registration))

    async def batch(self, batch_id: str, after: str = "") -> answers.BatchPage:
        """A batch with its counters, and a page of its tasks."""
        return await self.call(calls.task_batch(batch_id, after))

    # ── conversations ──

    async def participants(self, conversation_id: str) -> answers.Participants:
        """Who is in."""
        return await self.call(calls.participants(conversation_id))

    async def set_participants(self, conversation_id: str, users: Iterable[str]) -> answers.Participants:
        """Makes the conversation when there is none; `users` are its participants from now on."""
        return await self.call(calls.set_participants(conversation_id, users))

    async def change_participants(
        self, conversation_id: str, add: Iterable[str] = (), remove: Iterable[str] = ()
    ) -> answers.Participants:
        """Adds, then removes."""
        return await self.call(calls.change_participants(conversation_id, add, remove))

    async def send_message(self, conversation_id: str, message: bodies.Message) -> answers.StoredMessage:
        """Keeps a message, then broadcasts it to the other participants."""
        return await self.call(calls.send_message(conversation_id, message))

    async def messages(self, conversation_id: str, before: int = 0, limit: int = 50) -> answers.MessagePage:
        """What was said, newest first."""
        return await self.call(calls.messages(conversation_id, before, limit))

    async def typing(self, conversation_id: str, is_typing: bool, user: str | None = None) -> None:
        """Tells the other participants that `user` (None: the token's) is typing; sent at most once."""
        await self.call(calls.typing(conversation_id, is_typing, user))

    async def read(self, conversation_id: str, message_ids: Iterable[str], user: str | None = None) -> None:
        """Tells the other participants what `user` (None: the token's) has read, and remembers it."""
        await self.call(calls.read(conversation_id, message_ids, user))

    async def broadcast(self, conversation_id: str, said: bodies.Broadcast) -> answers.Receipt:
        """Tells participants something that is not among the conversation's messages."""
        return await self.call(calls.broadcast(conversation_id, said))

    async def direct_message(
        self, user: str, data: Mapping[str, Any], message_id: str = ""
    ) -> answers.Receipt:
        """To one user, in no conversation."""
        return await self.call(calls.direct_message(user, data, message_id))

    # ── who is there ──

    async def user_presence(self, user: str) -> answers.UserPresence:
        """Whether a user is online, and on what."""
        return await self.call(calls.user_presence(user))

    async def presence(self, channel: str = "", after: str = "", limit: int = 100) -> answers.PresencePage:
        """Who is online, or a member of a presence channel."""
        return await self.call(calls.presence(channel, after, limit))

    async def devices(self, user: str) -> list[answers.Device]:
        """A user's registered devices, last seen first."""
        return await self.call(calls.devices(user))

    async def connections(self, user: str) -> list[answers.Connection]:
        """All live connections of a user. Needs role `admin`."""
        return await self.run(flows.connections_of(self.policy, user))

    # ── doing it ──

    async def call(self, call: Call[T]) -> T:
        """One call of `calls`."""
        return await self.run(perform(self.policy, call))

    async def run(self, flow: Flow[T]) -> T:
        """Drives a flow to its end."""
        try:
            step = next(flow)
            while True:
                try:
                    outcome = await self._do(step)
                except httpx.RequestError as error:
                    step = flow.throw(error)
                else:
                    step = flow.send(outcome)
        except StopIteration as done:
            found: T = done.value
            return found
        except httpx.RequestError as error:
            raise failed(error) from None
        finally:
            flow.close()

    async def _do(self, step: Step) -> Any:
        if isinstance(step, Send):
            self.check_open(self._http.is_closed)
            answer = await self._http.request(step.method, step.path, **request_of(step))
            return Answer(answer.status_code, answer.headers, answer.content)
        if isinstance(step, Sleep):
            return await asyncio.sleep(step.seconds)
        if isinstance(step, Ask):
            given = step.function(step.argument)
            return await given if inspect.isawaitable(given) else given
        async with self._turn:
            if self._get_token is not None and self._token in ("", step.refused):
                given = self._get_token()
                self._token = checked_token(await given if inspect.isawaitable(given) else given)
            return self._token
