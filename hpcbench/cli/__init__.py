"""The command line: verbs, their options, and everything that is printed.

In: what a person types. Out: text on standard output, errors on standard error, an exit code: 0 done, 1 something
failed, 2 wrong usage or config, 130 interrupted, 141 nobody reads any more. It holds no logic of its own and imports
each room only when a verb needs it, so that `hpcbench --help` stays quick.
"""

from __future__ import annotations

import json
import sys
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from hpcbench.cli import jobs as cli_jobs
from hpcbench.cli import site as cli_cluster
from hpcbench.cli import submit as cli_submit
from hpcbench.cli.conventions import EXIT_INTERRUPTED, Verbs, WatchingCommand, exit_code
from hpcbench.cli.options import SaveDir, Watch
from hpcbench.cli.single_run import verbs as cli_here
from hpcbench.errors import HpcbenchError, PlanError

app = typer.Typer(
    name="hpcbench",
    cls=Verbs,
    help="One YAML of LLM fine-tuning experiments in, Slurm jobs, one trustworthy report out.",
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def main() -> None:
    """Run the command line; every expected error becomes a message and an exit code, never a traceback."""
    import logging

    logging.basicConfig(level=logging.WARNING, format="%(levelname)s: %(message)s", stream=sys.stderr)
    try:
        app()
    except (HpcbenchError, OSError) as error:
        from hpcbench.cli.output import print_error

        print_error(error)
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


cli_submit.register(app)
cli_here.register(app)
cli_jobs.register(app)


@app.command(cls=WatchingCommand)
def collect(
    suites: Annotated[
        list[str] | None, typer.Argument(metavar="[SUITE...]", help="Suites by name; default: all.")
    ] = None,
    save_dir: SaveDir = None,
    output_format: Annotated[str, typer.Option("--format", help="markdown, csv, json or html.")] = "markdown",
    layout: Annotated[
        str, typer.Option("--layout", help="default, or swift: the original's exact columns.")
    ] = "default",
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="Write to this file instead of printing.")
    ] = None,
    watch: Watch = None,
) -> None:
    """Build the report from the records; idempotent, made for cron."""
    from hpcbench.cli.invocation import usual_save_dir
    from hpcbench.cli.output import print_warnings
    from hpcbench.cli.selection import gather_suites
    from hpcbench.cli.watch import watch_report
    from hpcbench.report import render
    from hpcbench.storage.json_files import write_text

    if output_format not in {"markdown", "csv", "json", "html"}:
        raise PlanError(f"--format {output_format}: unknown; expected markdown, csv, json or html")
    if layout not in {"default", "swift"}:
        raise PlanError(f"--layout {layout}: unknown; expected default or swift")
    if watch is not None and output is None:
        raise PlanError("--watch rewrites a file: name it with -o")
    root = usual_save_dir(save_dir)
    make = partial(render, format=output_format, layout=layout)  # type: ignore[arg-type]  # checked above
    collection = gather_suites(root, suites)
    if watch is not None and output is not None:
        watch_report(root, suites or (), output, make, every_s=watch or None)
        return
    print_warnings(collection)
    text = make(collection)
    if output is None:
        print(text, end="" if text.endswith("\n") else "\n")
    else:
        write_text(output, text)
        print(f"wrote {output}")


@app.command()
def schema(
    of: Annotated[str, typer.Argument(metavar="[suite|record]", help="What to describe.")] = "suite",
) -> None:
    """Print a JSON Schema: of suites, for editors, or of records, for programs that read them."""
    from hpcbench.config.schema import suite_json_schema
    from hpcbench.schemas.record import Record

    if of not in {"suite", "record"}:
        raise PlanError(f"schema {of}: unknown; expected suite or record")
    value = suite_json_schema() if of == "suite" else Record.model_json_schema()
    print(json.dumps(value, indent=2))


cli_cluster.register(app)
