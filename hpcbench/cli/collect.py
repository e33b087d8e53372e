"""The verb that reports: collect."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hpcbench.cli.completion import complete_suites
from hpcbench.cli.conventions import WatchingVerb, add_verb
from hpcbench.cli.options import SaveDir, Watch
from hpcbench.cli.report_format import STANDARD_OUTPUT, TERMINAL, choose_format
from hpcbench.cli.report_options import Best, By, Columns, FormatName, Full, LayoutName, Top, Value, read_options
from hpcbench.errors import PlanError

if TYPE_CHECKING:
    from hpcbench.schemas.collection import Collection


def register(app: typer.Typer) -> None:
    """Add the verb to the command line."""
    add_verb(app, collect, group="Results", example="hpcbench collect qwen -o report.md", cls=WatchingVerb)


def collect(
    suites: Annotated[
        list[str] | None,
        typer.Argument(metavar="SUITE", help="Suites by name or glob; default: all.", autocompletion=complete_suites),
    ] = None,
    save_dir: SaveDir = None,
    output_format: FormatName = None,
    layout: LayoutName = None,
    columns: Columns = None,
    by: By = None,
    value: Value = None,
    best: Best = None,
    top: Top = None,
    full: Full = False,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", metavar="FILE", help="Write to this file; - prints.")
    ] = None,
    plots: Annotated[
        Path | None,
        typer.Option(
            "--plots",
            metavar="DIR",
            help="Draw the main pictures (scores, trade-offs, losses) as PNG and SVG into this folder; Markdown shows "
            "them.",
            file_okay=False,
        ),
    ] = None,
    watch: Watch = None,
) -> None:
    """Build the report from the records.

    It changes nothing but the report, so cron may run it.
    """
    from hpcbench.cli.output import print_report, print_warnings
    from hpcbench.cli.plots import draw_plots
    from hpcbench.cli.selection import gather_suites
    from hpcbench.cli.watch import watch_report
    from hpcbench.cluster.save_dir import usual_save_dir
    from hpcbench.report import ReportContext, render_parts
    from hpcbench.status.artifacts import ArtifactsOnDisk
    from hpcbench.storage.json_files import write_text_parts

    file = None if output == STANDARD_OUTPUT else output
    options = read_options(layout=layout, columns=columns, by=by, value=value, best=best, top=top, full=full)
    chosen = choose_format(output_format, output, options, on_terminal=sys.stdout.isatty())
    if watch is not None and file is None:
        raise PlanError("--watch rewrites a file: name it with -o")
    if full and chosen == TERMINAL:
        raise PlanError("--full: goes with --format json alone")
    if chosen == TERMINAL and file is not None:
        raise PlanError(f"--format terminal: does not go into a file ({file})", hint="take --format markdown or html")
    root = usual_save_dir(save_dir)
    context = ReportContext(artifacts=ArtifactsOnDisk(), folder=None if file is None else file.absolute().parent)

    def make(collection: Collection) -> Iterable[str]:
        around = (
            context if plots is None else replace(context, pictures=draw_plots(collection, options, context, plots))
        )
        return render_parts(collection, format=chosen, options=options, context=around)  # type: ignore[arg-type]  # checked

    collection = gather_suites(root, suites)
    if watch is not None and file is not None:
        watch_report(root, suites or (), file, lambda found: "".join(make(found)), every_s=watch or None)
        return
    if chosen == TERMINAL:
        if plots is not None:
            draw_plots(collection, options, context, plots)
        print_report(collection, suites or ())
        return
    print_warnings(collection)
    parts = make(collection)
    if file is None:
        part = ""
        for part in parts:
            print(part, end="")
        print(end="" if part.endswith("\n") else "\n")
    else:
        write_text_parts(file, parts)
        print(f"wrote {file}")
