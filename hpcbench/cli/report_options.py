"""The options of `collect` that say what a report shows, and what they mean together.

In: words that were typed. Out: `ReportOptions`. It reads no results.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from hpcbench.cli.completion import complete_columns, complete_from, complete_settings
from hpcbench.cli.report_format import FORMATS

if TYPE_CHECKING:
    from hpcbench.schemas.report_options import ReportOptions

# `Layout` of `schemas/report_options.py`, which imports pydantic: help does without.
LAYOUTS = ("table", "swift", "pivot", "lm-eval")

FormatName = Annotated[
    str | None,
    typer.Option(
        "--format",
        metavar="FORMAT",
        help="terminal, markdown, html, latex, csv (a row per experiment), long (CSV, a row per figure) or json. "
        "Default: by the ending of FILE; without FILE, terminal on a terminal, else markdown.",
        autocompletion=complete_from(FORMATS),
    ),
]
LayoutName = Annotated[
    str | None,
    typer.Option(
        "--layout",
        metavar="LAYOUT",
        help="table; swift: exactly the columns of SWIFT 2.x's benchmark; pivot: a row per setting, figures as its "
        "sweeps have them; lm-eval: the table that lm-eval prints.",
        autocompletion=complete_from(LAYOUTS),
    ),
]
Columns = Annotated[
    str | None,
    typer.Option(
        "--columns",
        metavar="KEYS",
        help="Columns to show, in this order: keys of CSV's columns, eval datasets, settings such as lora_rank; "
        "separated by commas.",
        autocompletion=complete_columns,
    ),
]
By = Annotated[
    str | None,
    typer.Option(
        "--by",
        metavar="SETTINGS",
        help="A grid: settings that make the rows, and the last of several the columns.",
        autocompletion=complete_settings,
    ),
]
Value = Annotated[
    str | None,
    typer.Option(
        "--value",
        metavar="KEYS",
        help="Figures in the cells of --by; a grid for each.",
        autocompletion=complete_columns,
    ),
]
Best = Annotated[
    str | None,
    typer.Option(
        "--best",
        metavar="KEY",
        help="Experiments ranked by this figure, with checkpoints.",
        autocompletion=complete_columns,
    ),
]
Top = Annotated[int | None, typer.Option("--top", min=1, metavar="N", help="The first N of --best.")]
Full = Annotated[bool, typer.Option("--full", help="With json: the whole record of each job.")]


def read_options(
    *,
    layout: str | None,
    columns: str | None,
    by: str | None,
    value: str | None,
    best: str | None,
    top: int | None,
    full: bool,
) -> ReportOptions:
    """Return the options that were typed; those that were not leave the choice to the suite.

    Raises:
        PlanError: there is no such layout.
    """
    from hpcbench.cli.selection import choose_word
    from hpcbench.schemas.report_options import ReportOptions

    if layout is not None:
        layout = choose_word("--layout", layout, LAYOUTS, other_names={"default": "table"})  # its name before 0.3
    lists = {name: _split(text) for name, text in (("columns", columns), ("by", by), ("value", value)) if text}
    typed = {"layout": layout, "best": best, "top": top, "full": full or None} | lists
    return ReportOptions.model_validate({name: given for name, given in typed.items() if given is not None})


def _split(text: str) -> tuple[str, ...]:
    return tuple(word.strip() for word in text.split(",") if word.strip())
