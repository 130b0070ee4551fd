"""The event bus: a shared, ordered log per tenant with live follow.

In: drafts. Out: receipts, pages, entries in offset order. Must not: know hub, sessions, HTTP or encodings.
`port.py` is the contract; `memory`, `sqlite` and `redis` keep it, and one contract suite runs over all of
them.
"""
