"""The encodings of the native dialect: its text in the wire frame of each transport."""

from __future__ import annotations

from dualcast.dialects.native import socket_publication, socket_recovered, stream_publication
from dualcast.hub.encoding import Encoding

from .frames import chunk, deflated_text, text

NATIVE_SSE = Encoding("native-sse", "sse", stream_publication, chunk, conflates=True)
NATIVE_WS = Encoding(
    "native-ws", "ws", socket_publication, text, conflates=True, encode_recovered=socket_recovered
)
NATIVE_WS_DEFLATE = Encoding(
    "native-ws-deflate",
    "ws",
    socket_publication,
    deflated_text,
    conflates=True,
    encode_recovered=socket_recovered,
)
