"""The providers that come with dualcast, and how others are found.

*In:* a provider's name, its settings. *Out:* a `port.Provider`. *Must not:* fall back to another provider
than the one that was asked for.
"""
