"""What a Python backend says to dualcast: notifications, rooms, topics, conversations, progress, tasks.

`AsyncClient` and `Client` speak the native REST interface; `rooms`, `topics`, `conversations`, `progress` and
`notifications` have the calls that backends of the older contracts make, under their names.
"""

from .bodies import (
    Audience,
    BatchRegistration,
    Broadcast,
    Grant,
    Message,
    Notification,
    Publication,
    Target,
    TaskRegistration,
    TaskReport,
)
from .client import AsyncClient
from .conversations import create_broadcasting_service, create_sync_broadcasting_service
from .default import close_default, configure
from .errors import DualcastError
from .flow import Retries
from .sync import Client
from .topics import ws_manager

__all__ = [
    "AsyncClient",
    "Audience",
    "BatchRegistration",
    "Broadcast",
    "Client",
    "DualcastError",
    "Grant",
    "Message",
    "Notification",
    "Publication",
    "Retries",
    "Target",
    "TaskRegistration",
    "TaskReport",
    "close_default",
    "configure",
    "create_broadcasting_service",
    "create_sync_broadcasting_service",
    "ws_manager",
]
