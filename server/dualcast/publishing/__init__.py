"""What a publisher asks for becomes one append: validate, authorise, idempotency, append.

In: request structs and the principal that sent them. Out: drafts on the bus, receipts. Must not: know
sessions, hub, dialects or HTTP; take a tenant from anywhere but the principal; re-serialise a payload after
it was checked.
"""
