"""Provider `none`: no pushes. Nothing is queued; what another provider left in the queue becomes dead
letters, from where it can be sent again once there is a provider.
"""

from __future__ import annotations

from dualcast.push.port import PushJob, Refused


class NoProvider:
    """Refuses everything."""

    name = "none"

    async def check(self) -> None:
        """It can always refuse."""

    async def send(self, job: PushJob) -> None:
        raise Refused("no-provider")

    async def close(self) -> None:
        """Nothing to close."""
