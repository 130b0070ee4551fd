"""Node-local rate limits: token buckets in bounded tables. Publish quotas of tenants are not here but in the
append.

Tables forget the least recently seen key; a forgotten key starts with a full bucket, so the bound costs
strictness under very many addresses, never memory.
"""

from __future__ import annotations

import ipaddress
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable
from functools import lru_cache

from msgspec import Struct

from dualcast.model.errors import RateLimited


class RateSettings(Struct, frozen=True):
    """Rates per second; 0 switches a limit off. Each allows `burst_s` seconds' worth at once."""

    requests_per_ip_per_s: float = 0
    requests_per_principal_per_s: float = 0
    handshakes_per_ip_per_s: float = 50
    burst_s: float = 4.0
    max_keys: int = 20_000
    """Addresses or principals remembered per limit."""
    exempt: tuple[str, ...] = ("127.0.0.0/8", "::1")
    """Addresses and networks the limits per IP do not apply to: loopback and trusted proxies."""


class TokenBuckets:
    """One token bucket per key. A bucket is one number: the time at which it will be full again."""

    __slots__ = ("_burst_s", "_clock", "_full_at", "_interval_s", "_max_keys")

    def __init__(
        self, rate_per_s: float, burst_s: float, max_keys: int, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._interval_s = 1 / rate_per_s if rate_per_s > 0 else 0.0
        # At least one request fits, whatever the burst.
        self._burst_s = max(burst_s, self._interval_s)
        self._max_keys = max_keys
        self._clock = clock
        self._full_at: OrderedDict[Hashable, float] = OrderedDict()

    def take(self, key: Hashable) -> float:
        """Takes one token: 0.0, or the seconds until the next one is there (then none was taken)."""
        interval = self._interval_s
        if not interval:
            return 0.0
        now = self._clock()
        table = self._full_at
        full_at = max(table.get(key, now), now) + interval
        excess = full_at - now - self._burst_s
        if excess > 1e-9:
            return excess
        table[key] = full_at
        table.move_to_end(key)
        if len(table) > self._max_keys:
            table.popitem(last=False)
        return 0.0

    def __len__(self) -> int:
        return len(self._full_at)


class RateLimits:
    """The limits of a node."""

    def __init__(
        self, settings: RateSettings | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._settings = wanted = settings or RateSettings()

        def buckets(rate: float) -> TokenBuckets:
            return TokenBuckets(rate, wanted.burst_s, wanted.max_keys, clock)

        self._requests = buckets(wanted.requests_per_ip_per_s)
        self._principals = buckets(wanted.requests_per_principal_per_s)
        self._handshakes = buckets(wanted.handshakes_per_ip_per_s)
        networks = [network for text in wanted.exempt if (network := _network(text)) is not None]
        literals = {"", *wanted.exempt}  # "": a unix socket's peer, nothing to tell callers apart by

        @lru_cache(4096)
        def exempt(address: str) -> bool:
            try:
                ip = ipaddress.ip_address(address.partition("%")[0])
            except ValueError:
                # Whatever a proxy calls its client ("unknown", a name): limited like an address.
                return address in literals
            if isinstance(ip, ipaddress.IPv6Address):
                ip = ip.ipv4_mapped or ip
            return any(ip.version == network.version and ip in network for network in networks)

        self._exempt = exempt

    def is_exempt(self, address: str) -> bool:
        """Whether limits per IP leave `address` alone (also used for connection counts)."""
        return self._exempt(address)

    def request(self, address: str) -> None:
        """Counts one HTTP request from `address`; raises RateLimited with the seconds to wait."""
        if self._settings.requests_per_ip_per_s and not self._exempt(address):
            _check(self._requests.take(address), "too many requests from this address")

    def principal(self, tenant: str, sub: str) -> None:
        """Counts one authenticated REST request; raises RateLimited."""
        if self._settings.requests_per_principal_per_s:
            _check(self._principals.take((tenant, sub)), "too many requests by this caller")

    def handshake(self, address: str) -> None:
        """Counts one stream or socket handshake from `address`; raises RateLimited."""
        if self._settings.handshakes_per_ip_per_s and not self._exempt(address):
            _check(self._handshakes.take(address), "too many connects from this address")


def _network(text: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network | None:
    try:
        return ipaddress.ip_network(text, strict=False)
    except ValueError:
        return None  # "*" or the name of a unix socket, among trusted proxies


@lru_cache(4096)
def counted(address: str) -> str:
    """The name under which the clients of `address` are counted: an IPv6 subscriber owns a /64 and could
    come from another of its addresses every time.
    """
    try:
        ip = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address[:64]
    if isinstance(ip, ipaddress.IPv6Address):
        return str(ip.ipv4_mapped or ipaddress.ip_network((ip, 64), strict=False).network_address)
    return str(ip)


def _check(wait_s: float, reason: str) -> None:
    if wait_s:
        raise RateLimited(reason, retry_after_s=wait_s)
