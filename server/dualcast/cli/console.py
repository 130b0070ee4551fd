"""Where commands print: results on standard output, everything else on standard error."""

from __future__ import annotations

import sys

from rich.console import Console

WIDE = 160
"""Columns where the output is a file or a pipe, so that no table is cut."""

stdout = Console(soft_wrap=True, highlight=False, width=None if sys.stdout.isatty() else WIDE)
stderr = Console(stderr=True, soft_wrap=True, highlight=False)


class CommandFailed(Exception):
    """An expected failure; `reason` is shown to the user as it is."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


def problem(text: str) -> None:
    """One error line."""
    stderr.print("[bold red]Error:[/]", end=" ")
    stderr.print(text, markup=False)


def note(text: str) -> None:
    """One line beside the results."""
    stderr.print(text, style="dim", markup=False)
