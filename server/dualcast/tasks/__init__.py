"""Tasks and batches: registered with an owner, progress, finish; the last known state.

In: registrations and reports of backends. Out: stored states, `task` and `batch` publications. Must not:
let a finished task go on, know HTTP or dialects.
"""
