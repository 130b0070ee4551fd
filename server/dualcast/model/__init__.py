"""The words of dualcast as frozen values: what a publication, a cursor, a principal and an error are.

In: nothing. Out: plain values every other room may import. Must not: do I/O, hold state, import another room.
"""
