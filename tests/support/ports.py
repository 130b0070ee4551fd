"""Ports for servers of tests."""

from __future__ import annotations

import secrets
import socket

FIRST, FIRST_EPHEMERAL = 20_000, 32_768


def free_port() -> int:
    """A free port below the ephemeral range: while a server is not up nobody else, least of all a client that
    connects to it from that very port, takes it.
    """
    while True:
        port = FIRST + secrets.randbelow(FIRST_EPHEMERAL - FIRST)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        return port
