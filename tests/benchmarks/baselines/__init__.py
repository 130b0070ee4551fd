"""Servers dualcast is measured against.

In: `BENCH_REDIS_PORT` in the environment. Out: an ASGI `app` per module, run by uvicorn with uvloop. Must
not: import dualcast.
"""
