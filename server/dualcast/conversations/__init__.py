"""Conversations: stored participants and messages, broadcast; typing and read receipts that are not stored.

In: participants' messages. Out: stored messages, `conversation.*` publications, push riders. Must not:
know HTTP or dialects, let anybody but participants in.
"""
