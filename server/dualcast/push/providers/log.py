"""Provider `log`: a push is five log lines and nothing else (docs/contracts/legacy-wire.md section 6.4).

The lines hold what users wrote, on purpose: whoever chooses this provider wants to read it. Control
characters do not get through, so no text can forge a line.
"""

from __future__ import annotations

import logging
import re

import msgspec

from dualcast.model.push import cut
from dualcast.push.port import PushJob

log = logging.getLogger("dualcast.push")
MAX_SHOWN = 1000
"""Characters of the user id, the title and the data."""
# C0, DEL, C1, the line separators, and what turns the direction of text.
_UNSAFE = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]+")


class LogProvider:
    """Writes every push to the log, at INFO."""

    name = "log"

    async def check(self) -> None:
        """It can always work."""

    async def send(self, job: PushJob) -> None:
        message = job.message
        devices = ",".join(message.devices) or "mobile"
        user = _plain(job.user)
        log.info("📱 推送通知 [%s] [优先级: %s]: %s", _plain(devices), _plain(message.priority), user)
        log.info("   标题: %s", _plain(message.title))
        log.info("   内容: %s", cut(_plain(message.text)))
        log.info("   [数据: %s]", _data(bytes(message.data)))
        log.debug("移动端推送通知已排队: user_id=%s", user)

    async def close(self) -> None:
        """Nothing to close."""


def _plain(text: str) -> str:
    text = _UNSAFE.sub(" ", text)
    return text if len(text) <= MAX_SHOWN else text[:MAX_SHOWN] + "..."


def _data(data: bytes) -> str:
    """The data as Python writes a dict, which escapes control characters by itself."""
    try:
        return _plain(repr(msgspec.json.decode(data)))
    except (msgspec.MsgspecError, RecursionError):
        return "?"
