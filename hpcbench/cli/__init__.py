"""The command line: verbs, their options, and everything that is printed.

Exit codes: 0 done, 1 something failed, 2 wrong usage or config, 130 interrupted, 141 nobody reads any more. It holds no
logic of its own and imports each room only when a verb needs it, so that `hpcbench --help` stays quick.
"""

from __future__ import annotations

import contextlib
import sys
from typing import Annotated

import typer

from hpcbench.cli import collect, compare, demo, environment, export, jobs, site, submit
from hpcbench.cli.conventions import Verbs, exit_code
from hpcbench.cli.single_run import verbs
from hpcbench.errors import EXIT_INTERRUPTED, HpcbenchError
from hpcbench.invocation import new_invocation
from hpcbench.processes.standard_streams import flush_or_discard, open_streams

app = typer.Typer(
    name="hpcbench",
    cls=Verbs,
    help="One YAML of LLM fine-tuning experiments in, Slurm jobs, one trustworthy report out.",
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120},
)


def main() -> None:
    """Run the command line; every expected error becomes a message and an exit code, never a traceback."""
    import logging

    open_streams()
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s: %(message)s", stream=sys.stderr)
    try:
        with new_invocation():
            # Else `python -m hpcbench` would call itself that in its messages.
            app(prog_name=app.info.name)
    except (HpcbenchError, OSError) as error:
        from hpcbench.cli.output import print_error

        with contextlib.suppress(OSError):  # standard error may be the pipe that broke
            print_error(error)
        flush_or_discard()
        sys.exit(exit_code(error))
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(EXIT_INTERRUPTED)


def _version(value: bool) -> None:
    if value:
        from hpcbench import __version__

        print(f"hpcbench {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and leave.")
    ] = False,
) -> None:
    pass


for room in (demo, submit, verbs, jobs, collect, compare, export, site, environment):
    room.register(app)
