"""dualcast for Python: publish, subscribe, read inboxes, administer.

`AsyncClient` and `Client` speak the native REST interface, and with `subscribe` its streams and sockets;
`rooms`, `topics`, `conversations`, `progress` and `notifications` have the calls that backends of the older
contracts make, under their names.
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
from .cursors import CursorStore, FileCursorStore, MemoryCursorStore
from .default import close_default, configure
from .errors import DualcastError
from .events import (
    BusStatus,
    ChannelState,
    Disconnected,
    Event,
    Gap,
    GapError,
    MoveAsked,
    Published,
    StageChanged,
    Status,
    Unsubscribed,
    Welcome,
)
from .flow import Retries
from .history import HistoryPage
from .inbox_calls import Counts, InboxItem, InboxPage, Marked
from .line import Reconnects
from .stream import Stream
from .sync import Client
from .sync_stream import SyncStream
from .tenant_shapes import (
    Brownout,
    Cohort,
    NewKey,
    SettingsChange,
    StageRecord,
    TenantSettings,
)
from .topics import ws_manager

__all__ = [
    "AsyncClient",
    "Audience",
    "BatchRegistration",
    "Broadcast",
    "Brownout",
    "BusStatus",
    "ChannelState",
    "Client",
    "Cohort",
    "Counts",
    "CursorStore",
    "Disconnected",
    "DualcastError",
    "Event",
    "FileCursorStore",
    "Gap",
    "GapError",
    "Grant",
    "HistoryPage",
    "InboxItem",
    "InboxPage",
    "Marked",
    "MemoryCursorStore",
    "Message",
    "MoveAsked",
    "NewKey",
    "Notification",
    "Publication",
    "Published",
    "Reconnects",
    "Retries",
    "SettingsChange",
    "StageChanged",
    "StageRecord",
    "Status",
    "Stream",
    "SyncStream",
    "Target",
    "TaskRegistration",
    "TaskReport",
    "TenantSettings",
    "Unsubscribed",
    "Welcome",
    "close_default",
    "configure",
    "create_broadcasting_service",
    "create_sync_broadcasting_service",
    "ws_manager",
]
