"""Bytes on sockets: the HTTP protocol class, the WebSocket upgrade, frames in and out, and the plain-ASGI
fallback.

In: bytes from sockets, ASGI messages from admitted requests, ready wire bytes from sessions. Out: ASGI scopes
for the gateway, parsed frames for sessions, bytes to sockets. Must not: know channels, tokens or the bus;
start a task, timer or queue per idle connection; log a query string; buffer without a bound.
"""
