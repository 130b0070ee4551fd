"""The command group, and what every command shares: errors as one line, exit codes."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import rich_click as click

from dualcast import __version__
from dualcast.model.errors import DualcastError
from dualcast.settings import SettingsError

from .bench import bench
from .console import CommandFailed, problem
from .doctor import doctor
from .migrate import migrate
from .migrate_evidence import COMMANDS as EVIDENCE
from .publish import publish
from .serve import serve
from .sign import token
from .tail import tail
from .tenants import tenants

FAILED, USAGE, INTERRUPTED = 1, 2, 130


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="dualcast", message="%(prog)s %(version)s")
def cli() -> None:
    """Notifications to EventSource and WebSocket clients over one event bus."""


for _command in EVIDENCE:
    migrate.add_command(_command)
for _command in (serve, doctor, token, publish, tail, migrate, tenants, bench):
    cli.add_command(_command)


def run(arguments: Sequence[str] | None = None) -> int:
    """Runs one command (`arguments`: those of the process by default) and returns the exit code."""
    try:
        result = cli.main(arguments, prog_name="dualcast", standalone_mode=False)
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        return INTERRUPTED
    except SettingsError as error:
        problem(error.reason)
        return USAGE
    except (CommandFailed, DualcastError) as error:
        problem(error.reason)
        return FAILED
    except BrokenPipeError:
        # The reader of our output (head, less) has gone: keep the interpreter from flushing again.
        sys.stdout = None
        return FAILED
    return result if isinstance(result, int) else 0
