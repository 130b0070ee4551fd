"""The command line: serve, doctor, token, publish, tail, migrate, tenants, bench.

In: arguments, settings. Out: a running server, or requests to one over its public HTTP interface; text for
people, or JSON with `--json`. Must not: change a running server's files, show a traceback for an expected
failure.
Exit codes: 0 done · 1 failed · 2 wrong usage or settings · 130 interrupted.
"""

from __future__ import annotations


def main() -> None:
    """Entry point of the `dualcast` script. Exits the process."""
    from .root import run  # the commands' libraries are loaded only here

    raise SystemExit(run())
