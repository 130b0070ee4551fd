"""A WebSocket of an older contract in JSON, for tests that read what they are told."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any
from urllib.parse import urlencode

from websockets.asyncio.client import connect as websocket_connect

from support.legacy_node import Socket

_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z")


class TextSocket(Socket):
    """Open until `close`, or until the server closes it."""

    async def frame(self) -> dict[str, Any]:
        """The next text as JSON."""
        found: dict[str, Any] = json.loads(await self.text())
        return found

    async def before(self, last: Callable[[dict[str, Any]], bool]) -> list[str]:
        """The texts in front of the first that `last` is true of, which is taken as well."""
        found: list[str] = []
        while True:
            text = await self.text()
            if text.startswith("{") and last(json.loads(text)):
                return found
            found.append(text)

    async def tell(self, **message: Any) -> None:
        """Sends an object."""
        await self.say(json.dumps(message, ensure_ascii=False))


async def open_text(port: int, path: str, token: str = "", **query: str) -> TextSocket:
    """Opens a socket; `query`: beside the token. A refusal shows as `Closed` at the first `text`."""
    asked = urlencode({**({"token": token} if token else {}), **query})
    address = f"ws://127.0.0.1:{port}{path}{'?' + asked if asked else ''}"
    return TextSocket(await websocket_connect(address, compression=None, max_size=None, ping_interval=None))


def timeless(text: str) -> str:
    """A text with its times taken out."""
    return _TIME.sub("Z", text)
