"""Who is online, on which devices and connections, over all nodes; the device registry.

In: connections that come and go on this node. Out: states and counts, join and leave publications on
`presence` channels. Must not: know transports or HTTP, keep a task or timer per connection.
"""
