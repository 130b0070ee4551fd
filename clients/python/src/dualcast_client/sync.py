"""`Client`: what `AsyncClient` is for asyncio, for threads. The same calls, the same guarantees."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import TracebackType
from typing import Any, Self, TypeVar, Unpack

import httpx

from . import answers, bodies, calls, flows
from .admin_sync import Admin
from .common import Common, checked_token, failed, request_of
from .flow import Answer, Ask, Call, Flow, Retries, Send, Sleep, Step, perform
from .history import HistoryPage, history
from .inbox import Inbox
from .sync_stream import SyncStream
from .wanted import Options, wanted

T = TypeVar("T")


class Client(Common):
    """For threads; safe to share between them. `with Client("https://push.example", token) as client: …`, or
    `close()`. Arguments as of AsyncClient.
    """

    def __init__(
        self,
        base_url: str,
        token: str | Callable[[], str] = "",
        *,
        get_token: Callable[[], str] | None = None,
        timeout_s: float = 10.0,
        retries: int | Retries = 4,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        if not isinstance(token, str):
            get_token = token
            token = ""
        super().__init__(base_url, get_token is not None, timeout_s, retries)
        self._token = checked_token(token) if token or get_token is None else ""
        self._get_token = get_token
        self._turn = threading.Lock()
        self._http = httpx.Client(transport=transport, **self.options())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def use_token(self, token: str) -> None:
        """Another token, from the next request on."""
        self._token = checked_token(token)

    def close(self) -> None:
        """Closes the connections."""
        self._http.close()

    # ── publishing ──

    def notify(self, notification: bodies.Notification) -> answers.Receipt:
        """Something a person should see: stored, delivered, and pushed where that is asked for."""
        return self.call(calls.notify(notification))

    def notify_many(self, notifications: Sequence[bodies.Notification]) -> tuple[answers.ItemResult, ...]:
        """Many in few requests; a result for each, in order. Only a whole batch that fails raises."""
        return self.run(flows.notify_many(self.policy, notifications))

    def publish(self, publication: bodies.Publication) -> answers.Receipt:
        """An event of any type to any channels."""
        return self.call(calls.publish(publication))

    # ── subscribing ──

    def subscribe(self, channels: Iterable[str] = (), **options: Unpack[Options]) -> SyncStream:
        """What is published on `channels`, to the token's user and to all, over every break:
        `with client.subscribe(["topic:a"]) as stream: for publication in stream: …`. The options are those of
        `wanted.wanted`. A stream lives as long as its `with`, not as its client.
        """
        return SyncStream(self.base_url, self.policy, self.run, self.use_token, wanted(channels, **options))

    def history(self, channel: str, after: str = "", limit: int = 100) -> HistoryPage:
        """What was published on a channel, oldest first."""
        return self.call(history(channel, after, limit))

    # ── inbox and administration ──

    def inbox(self, user: str) -> Inbox:
        """What is stored for a user."""
        return Inbox(self.call, user)

    @property
    def admin(self) -> Admin:
        """Tenants, migration, grants, connections, revocations."""
        return Admin(self.call)

    # ── tasks ──

    def register_task(self, task_id: str, registration: bodies.TaskRegistration) -> answers.Task:
        """Makes a task known with its owner, who may follow it."""
        return self.call(calls.register_task(task_id, registration))

    def report_task(self, task_id: str, report: bodies.TaskReport) -> answers.Task:
        """Progress, or the end."""
        return self.call(calls.report_task(task_id, report))

    def cancel_task(self, task_id: str) -> answers.Task:
        """Finishes a task as `cancelled`."""
        return self.call(calls.cancel_task(task_id))

    def task(self, task_id: str) -> answers.Task:
        """The last known state."""
        return self.call(calls.task(task_id))

    def register_batch(self, batch_id: str, registration: bodies.BatchRegistration) -> answers.Batch:
        """Makes a batch of tasks known with its owner; tasks join by naming it."""
        return self.call(calls.register_batch(batch_id, registration))

    def batch(self, batch_id: str, after: str = "") -> answers.BatchPage:
        """A batch with its counters, and a page of its tasks."""
        return self.call(calls.task_batch(batch_id, after))

    # ── conversations ──

    def participants(self, conversation_id: str) -> answers.Participants:
        """Who is in."""
        return self.call(calls.participants(conversation_id))

    def set_participants(self, conversation_id: str, users: Iterable[str]) -> answers.Participants:
        """Makes the conversation when there is none; `users` are its participants from now on."""
        return self.call(calls.set_participants(conversation_id, users))

    def change_participants(
        self, conversation_id: str, add: Iterable[str] = (), remove: Iterable[str] = ()
    ) -> answers.Participants:
        """Adds, then removes."""
        return self.call(calls.change_participants(conversation_id, add, remove))

    def send_message(self, conversation_id: str, message: bodies.Message) -> answers.StoredMessage:
        """Keeps a message, then broadcasts it to the other participants."""
        return self.call(calls.send_message(conversation_id, message))

    def messages(self, conversation_id: str, before: int = 0, limit: int = 50) -> answers.MessagePage:
        """What was said, newest first."""
        return self.call(calls.messages(conversation_id, before, limit))

    def typing(self, conversation_id: str, is_typing: bool, user: str | None = None) -> None:
        """Tells the other participants that `user` (None: the token's) is typing; sent at most once."""
        self.call(calls.typing(conversation_id, is_typing, user))

    def read(self, conversation_id: str, message_ids: Iterable[str], user: str | None = None) -> None:
        """Tells the other participants what `user` (None: the token's) has read, and remembers it."""
        self.call(calls.read(conversation_id, message_ids, user))

    def broadcast(self, conversation_id: str, said: bodies.Broadcast) -> answers.Receipt:
        """Tells participants something that is not among the conversation's messages."""
        return self.call(calls.broadcast(conversation_id, said))

    def direct_message(self, user: str, data: Mapping[str, Any], message_id: str = "") -> answers.Receipt:
        """To one user, in no conversation."""
        return self.call(calls.direct_message(user, data, message_id))

    # ── who is there ──

    def user_presence(self, user: str) -> answers.UserPresence:
        """Whether a user is online, and on what."""
        return self.call(calls.user_presence(user))

    def presence(self, channel: str = "", after: str = "", limit: int = 100) -> answers.PresencePage:
        """Who is online, or a member of a presence channel."""
        return self.call(calls.presence(channel, after, limit))

    def devices(self, user: str) -> list[answers.Device]:
        """A user's registered devices, last seen first."""
        return self.call(calls.devices(user))

    def connections(self, user: str) -> list[answers.Connection]:
        """All live connections of a user. Needs role `admin`."""
        return self.run(flows.connections_of(self.policy, user))

    # ── doing it ──

    def call(self, call: Call[T]) -> T:
        """One call of `calls`."""
        return self.run(perform(self.policy, call))

    def run(self, flow: Flow[T]) -> T:
        """Drives a flow to its end."""
        try:
            step = next(flow)
            while True:
                try:
                    outcome = self._do(step)
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

    def _do(self, step: Step) -> Any:
        if isinstance(step, Send):
            self.check_open(self._http.is_closed)
            answer = self._http.request(step.method, step.path, **request_of(step))
            return Answer(answer.status_code, answer.headers, answer.content)
        if isinstance(step, Sleep):
            return time.sleep(step.seconds)
        if isinstance(step, Ask):
            return step.function(step.argument)
        with self._turn:
            if self._get_token is not None and self._token in ("", step.refused):
                self._token = checked_token(self._get_token())
            return self._token
