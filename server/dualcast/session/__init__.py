"""One connected client: subscriptions, live or behind, receipts, limits, drain.

In: an authenticated principal with channels, bytes of a transport's protocol callbacks. Out: frames written
to the transport in offset order. Must not: know HTTP, frame bytes, or how a channel was authorised.
"""
