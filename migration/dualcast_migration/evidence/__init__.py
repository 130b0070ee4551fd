"""What is known of how a tenant's move goes: counted by every node, summed up over all of them, judged by the
guard.

In: what sessions and the gateway note. Out: sums of windows, the census, kept mismatches, a step back. Must
not: make a connection wait, keep a name, a path or a query of anybody, step forward.
"""
