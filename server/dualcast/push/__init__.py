"""Device pushes for those who are away: a durable queue and the providers that send.

In: push riders of appends. Out: calls of a provider, dead letters. Must not: block publishing, lose a
queued push, show a push's content in a log line unless the `log` provider is what the operator chose.
"""
