"""What both clients keep and check."""

from __future__ import annotations

from typing import Any

import httpx

from .errors import DualcastError
from .flow import Policy, Retries, Send

USER_AGENT = "dualcast-client/0.1.0"


class Common:
    """What both clients keep."""

    def __init__(self, base_url: str, renewable: bool, timeout_s: float, retries: int | Retries) -> None:
        self.base_url = checked_url(base_url)
        if timeout_s <= 0:
            raise ValueError("timeout_s is above 0")
        self.timeout_s = timeout_s
        self.retries = Retries(count=retries) if isinstance(retries, int) else retries
        self.policy = Policy(self.retries, renewable)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.base_url!r})"

    def check_open(self, closed: bool) -> None:
        if closed:
            raise DualcastError("closed", 0, "the client has been closed")

    def options(self) -> dict[str, Any]:
        return {
            "base_url": self.base_url,
            "timeout": httpx.Timeout(self.timeout_s),
            "limits": httpx.Limits(max_connections=64, max_keepalive_connections=16, keepalive_expiry=15.0),
            "headers": {"User-Agent": USER_AGENT, "Accept": "application/json"},
            "follow_redirects": False,
        }


def request_of(step: Send) -> dict[str, Any]:
    headers = {**step.headers, "Authorization": "Bearer " + step.token}
    if step.body is not None:
        headers["Content-Type"] = "application/json"
    return {"content": step.body, "params": dict(step.query) or None, "headers": headers}


def checked_url(text: str) -> str:
    try:
        url = httpx.URL(text)
    except httpx.InvalidURL:
        raise ValueError("base_url is not an address") from None
    if url.scheme not in ("http", "https") or not url.host:
        raise ValueError("base_url is an address such as https://push.example")
    if url.userinfo or url.query or url.fragment:
        # It stands in logs; credentials must not.
        raise ValueError("base_url has no user, query or fragment")
    return str(url).rstrip("/")  # the scheme and the host in small letters: `HTTPS:` is no reason for `ws:`


def checked_token(token: str) -> str:
    if (
        not isinstance(token, str)
        or not token
        or not token.isascii()
        or not token.isprintable()
        or " " in token
    ):
        raise DualcastError("bad-token", 0, "the token is empty or holds characters no token has")
    return token


def failed(error: httpx.RequestError) -> DualcastError:
    """What a request that could not be made, or an answer that could not be read, is to callers."""
    if isinstance(error, httpx.DecodingError):
        return DualcastError("bad-answer", 0, "the answer is badly compressed")
    return DualcastError("unreachable", 0, str(error) or type(error).__name__)
