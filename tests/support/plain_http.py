"""HTTP clients of tests speak to this machine without TLS. Reading the machine's certificates for each of
them costs more than many a test."""

from __future__ import annotations

import ssl
from typing import Any

import httpx

_NO_CERTIFICATES = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


def http_client(**how: Any) -> httpx.AsyncClient:
    """An `httpx.AsyncClient` that can speak TLS with nobody."""
    return httpx.AsyncClient(verify=_NO_CERTIFICATES, **how)
