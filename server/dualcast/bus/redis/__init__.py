"""The redis engine of the bus: many processes and machines over one server.

In: drafts, interest in channels. Out: receipts, pages, entries in offset order, proof of completeness. Must
not: open more connections when there are more channels or clients, let a redis or socket exception out, or
hand over offsets out of order.

`engine` puts the parts together: `wire` (one RESP connection) · `dialing` (whom to: one server, or the master
`sentinels` name; `elected`: the same for redis-py) · `calls` (script calls, pipelined) ·
`appending` · `reading` · `tap` (the subscriber connection) · `feed` (what is known per channel; decides what
goes on, is held or doubted) · `following` (interest, reconnect) · `repair` · `probing` · `pool` (the shared
redis-py client) · `doctor`.
"""
