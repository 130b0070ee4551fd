"""The benchmarks: `python tests/benchmarks/run.py` measures dualcast beside its baselines and writes
docs/benchmarks.md.

In: redis-server and gcc; nginx with nchan where it is installed. Out: one table, the targets of the design
with pass or miss, raw figures as JSON. Must not: be imported by tests or by the product.
"""
