"""Whose data it is: tenants with their keys, settings and stage; grants; who may subscribe to what.

In: a StateStore and its follower, seeds from the settings, `model.principal.Principal`. Out: `Tenant` values
answered from memory on the hot path, grants, yes or no. Must not: verify tokens (identity), let one tenant
see another, show a secret in a repr, a log or an answer.
"""
