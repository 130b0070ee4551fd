"""Who is calling: credentials out of a request, tokens and tickets into a Principal, revocation.

In: an ASGI scope, keys through the `keys.KeySource` protocol, a StateStore. Out: `model.principal.Principal`,
or Unauthorized, TokenExpired, Forbidden with a reason that is safe to show. Must not: know tenants' other
settings, write a token to a log or an exception, decide what a principal may do (that is `Principal.owns`,
tenancy and publishing).
"""
