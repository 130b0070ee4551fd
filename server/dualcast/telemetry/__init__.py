"""Numbers and lines about the running server: counters, metrics, logs.

In: plain increments from every room. Out: Prometheus text, structured log lines. Must not: lock on the hot
path, log a token or a query string, grow with the number of tenants or clients beyond its bound.
"""
