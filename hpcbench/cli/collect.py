"""The verb that reports: collect."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hpcbench.cli.completion import complete_columns, complete_from, complete_settings, complete_suites
from hpcbench.cli.conventions import WatchingVerb, add_verb
from hpcbench.cli.options import SaveDir, Watch
from hpcbench.cli.report_format import FORMATS, STANDARD_OUTPUT, TERMINAL, choose_format
from hpcbench.errors import PlanError

if TYPE_CHECKING:
    from hpcbench.schemas.collection import Collection

LAYOUTS = ("table", "swift", "pivot", "lm-eval")


def split_keys(text: str) -> tuple[str, ...]:
    """Return what was typed as one word, separated by commas."""
    return tuple(word.strip() for word in text.split(",") if word.strip())


def register(app: typer.Typer) -> None:
    """Add the verb to the command line."""
    add_verb(app, collect, group="Results", example="hpcbench collect qwen -o report.md", cls=WatchingVerb)


def collect(
    suites: Annotated[
        list[str] | None,
        typer.Argument(metavar="SUITE", help="Suites by name or glob; default: all.", autocompletion=complete_suites),
    ] = None,
    save_dir: SaveDir = None,
    output_format: Annotated[
        str | None,
        typer.Option(
            "--format",
            metavar="FORMAT",
            help="terminal, markdown, html, latex, csv (a row per experiment), long (CSV, a row per figure) or json. "
            "Default: by the ending of FILE; without FILE, terminal on a terminal, else markdown.",
            autocompletion=complete_from(FORMATS),
        ),
    ] = None,
    layout: Annotated[
        str | None,
        typer.Option(
            "--layout",
            metavar="LAYOUT",
            help="table; swift: exactly the columns of SWIFT 2.x's benchmark; pivot: a row per setting, figures as its "
            "sweeps have them; lm-eval: the table that lm-eval prints.",
            autocompletion=complete_from(LAYOUTS),
        ),
    ] = None,
    columns: Annotated[
        str | None,
        typer.Option(
            "--columns",
            metavar="KEYS",
            help="Columns to show, in this order: keys of CSV's columns, eval datasets, settings such as lora_rank; "
            "separated by commas.",
            autocompletion=complete_columns,
        ),
    ] = None,
    by: Annotated[
        str | None,
        typer.Option(
            "--by",
            metavar="SETTINGS",
            help="A grid: settings that make the rows, and the last of several the columns.",
            autocompletion=complete_settings,
        ),
    ] = None,
    value: Annotated[
        str | None,
        typer.Option(
            "--value",
            metavar="KEYS",
            help="Figures in the cells of --by; a grid for each.",
            autocompletion=complete_columns,
        ),
    ] = None,
    best: Annotated[
        str | None,
        typer.Option(
            "--best",
            metavar="KEY",
            help="Experiments ranked by this figure, with checkpoints.",
            autocompletion=complete_columns,
        ),
    ] = None,
    top: Annotated[int | None, typer.Option("--top", min=1, metavar="N", help="The first N of --best.")] = None,
    full: Annotated[bool, typer.Option("--full", help="With json: the whole record of each job.")] = False,
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
    from hpcbench.cli.selection import choose_word, gather_suites
    from hpcbench.cli.watch import watch_report
    from hpcbench.cluster.save_dir import usual_save_dir
    from hpcbench.report import ReportContext, render
    from hpcbench.schemas.report_options import ReportOptions
    from hpcbench.status.artifacts import ArtifactsOnDisk
    from hpcbench.storage.json_files import write_text

    file = None if output == STANDARD_OUTPUT else output
    if layout is not None:
        layout = choose_word("--layout", layout, LAYOUTS, other_names={"default": "table"})  # its name before 0.3
    keys = {name: split_keys(text) for name, text in (("columns", columns), ("by", by), ("value", value)) if text}
    typed = {"layout": layout, "best": best, "top": top, "full": full or None} | keys
    options = ReportOptions.model_validate({name: given for name, given in typed.items() if given is not None})
    chosen = choose_format(output_format, output, options, on_terminal=sys.stdout.isatty())
    if watch is not None and file is None:
        raise PlanError("--watch rewrites a file: name it with -o")
    if full and chosen == TERMINAL:
        raise PlanError("--full: goes with --format json alone")
    if chosen == TERMINAL and file is not None:
        raise PlanError(f"--format terminal: does not go into a file ({file})", hint="take --format markdown or html")
    root = usual_save_dir(save_dir)
    context = ReportContext(artifacts=ArtifactsOnDisk(), folder=None if file is None else file.absolute().parent)

    def make(collection: Collection) -> str:
        around = (
            context if plots is None else replace(context, pictures=draw_plots(collection, options, context, plots))
        )
        return render(collection, format=chosen, options=options, context=around)  # type: ignore[arg-type]  # checked

    collection = gather_suites(root, suites)
    if watch is not None and file is not None:
        watch_report(root, suites or (), file, make, every_s=watch or None)
        return
    if chosen == TERMINAL:
        if plots is not None:
            draw_plots(collection, options, context, plots)
        print_report(collection, suites or ())
        return
    print_warnings(collection)
    text = make(collection)
    if file is None:
        print(text, end="" if text.endswith("\n") else "\n")
    else:
        write_text(file, text)
        print(f"wrote {file}")
