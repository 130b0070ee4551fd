"""The older contracts on the wire (docs/contracts/legacy-wire.md): their sockets, streams and REST endpoints.

In: ASGI connections, the endpoints of `dialects` (and of installed packages), `Delivery`. Out: admitted
sessions of `transport.legacy`, refusals in the contract's form, what clients ask for carried out. Must not:
know a frame of any contract; that is for `dialects`.
"""
