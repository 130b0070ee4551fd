"""Small shared state with engines memory, sqlite and redis behind `port.StateStore`.

In: bytes under (space, key). Out: the same, versions, a change log. Must not: know what the values mean.
"""
