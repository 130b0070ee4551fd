"""Instances over all nodes: which sockets and streams of one page or app process are connected where.

In: rows of this node's sessions. Out: rows of the same instances on other nodes, without those of dead nodes.
Must not: decide who is muted (`dualcast_migration.muting`), know sessions, keep anything for good.
"""
