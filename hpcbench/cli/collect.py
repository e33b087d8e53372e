"""The verb that reports: collect."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from hpcbench.cli.completion import complete_from, complete_suites
from hpcbench.cli.conventions import WatchingVerb, add_verb
from hpcbench.cli.options import SaveDir, Watch
from hpcbench.errors import PlanError

FORMATS = ("markdown", "csv", "json", "html")
LAYOUTS = ("table", "swift")


def register(app: typer.Typer) -> None:
    """Add the verb to the command line."""
    add_verb(app, collect, group="Results", example="hpcbench collect qwen -o report.md", cls=WatchingVerb)


def collect(
    suites: Annotated[
        list[str] | None,
        typer.Argument(metavar="SUITE", help="Suites by name; default: all.", autocompletion=complete_suites),
    ] = None,
    save_dir: SaveDir = None,
    output_format: Annotated[
        str,
        typer.Option(
            "--format", metavar="FORMAT", help="markdown, csv, json or html.", autocompletion=complete_from(FORMATS)
        ),
    ] = "markdown",
    layout: Annotated[
        str,
        typer.Option(
            "--layout",
            metavar="LAYOUT",
            help="table, or swift: exactly the columns of ms-swift's benchmark.",
            autocompletion=complete_from(LAYOUTS),
        ),
    ] = "table",
    output: Annotated[
        Path | None, typer.Option("-o", "--output", metavar="FILE", help="Write to this file instead of printing.")
    ] = None,
    watch: Watch = None,
) -> None:
    """Build the report from the records.

    It changes nothing but the report, so cron may run it.
    """
    from hpcbench.cli.output import print_warnings
    from hpcbench.cli.selection import gather_suites
    from hpcbench.cli.watch import watch_report
    from hpcbench.cluster.save_dir import usual_save_dir
    from hpcbench.report import render
    from hpcbench.schemas.report_options import ReportOptions
    from hpcbench.storage.json_files import write_text

    if output_format not in FORMATS:
        raise PlanError(f"--format {output_format}: unknown; expected markdown, csv, json or html")
    layout = "table" if layout == "default" else layout  # its name before 0.3
    if layout not in LAYOUTS:
        raise PlanError(f"--layout {layout}: unknown; expected table or swift")
    if watch is not None and output is None:
        raise PlanError("--watch rewrites a file: name it with -o")
    root = usual_save_dir(save_dir)
    options = ReportOptions.model_validate({"layout": layout})
    make = partial(render, format=output_format, options=options)  # type: ignore[arg-type]  # checked above
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
