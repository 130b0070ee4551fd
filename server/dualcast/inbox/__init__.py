"""Stored notifications: what each user has unseen, unread and read, and the counters of it.

In: riders of appends, a user's marks. Out: pages, counters, one `inbox` publication per change.
Must not: know sessions, HTTP or dialects; count in two places.
"""
