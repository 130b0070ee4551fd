"""Names in Redis. All of a tenant share the hash tag `{tenant}`, so they live in one Cluster slot and a
script may touch them all; pub/sub names too, so they can become sharded channels. `lua/fence.lua` lists the
keys.
"""

from __future__ import annotations

from functools import lru_cache

from dualcast.model.channel import key_part


@lru_cache(maxsize=16_384)
def part(channel: str) -> str:
    """A channel as it stands in keys: `key_part`, remembered."""
    return key_part(channel)


def meta(prefix: str, tenant: str) -> str:
    """The tenant's meta hash, KEYS[1] of every script."""
    return f"{prefix}:{{{tenant}}}:m"


def live(prefix: str, tenant: str, channel: str) -> bytes:
    """The pub/sub name of a channel."""
    return f"{prefix}:{{{tenant}}}:p:{part(channel)}".encode()


def echo(prefix: str, node: str) -> bytes:
    """The pub/sub name of a node's own probes; no tenant id can hold the `~`."""
    return f"{prefix}:{{~echo}}:{node}".encode()
