"""Channel → sessions, and one fan-out per event-loop turn.

In: batches of entries from the bus. Out: one write per session and turn, in offset order; rings of recent
entries for recovery. Must not: know transports, dialects' contents, HTTP, or why a session exists.
"""
