"""The HTTP edge: Litestar lives here (and in `app`). Every request is authenticated, bounded and answered in
one error format.

In: ASGI connections, and `Services` from the composition root. Out: problem details, receipts, pages,
metrics; accepted streams and sockets go on to `transport`. Must not: read settings from the environment,
keep per-connection tasks, put exception text or a token in an answer or a log line.
"""
