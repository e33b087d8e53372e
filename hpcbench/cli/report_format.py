"""In which format `collect` reports: the one that was named, else by the ending of the file, else by who reads it.

In: what was typed, and whether standard output is a terminal. Out: a format's name. It renders nothing.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hpcbench.schemas.report_options import ReportOptions

TERMINAL = "terminal"
FORMATS = (TERMINAL, "markdown", "html", "latex", "csv", "long", "json")
OTHER_NAMES = {"md": "markdown", "htm": "html", "tex": "latex"}
SUFFIXES = {
    ".md": "markdown",
    ".markdown": "markdown",
    ".html": "html",
    ".htm": "html",
    ".tex": "latex",
    ".csv": "csv",
    ".json": "json",
}
STANDARD_OUTPUT = Path("-")


def choose_format(named: str | None, output: Path | None, options: ReportOptions, *, on_terminal: bool) -> str:
    """Return the format of a report.

    Raises:
        PlanError: an unknown format was named.
    """
    from hpcbench.cli.selection import choose_word

    if named is not None:
        return choose_word("--format", named, FORMATS, other_names=OTHER_NAMES)
    if output is not None and output != STANDARD_OUTPUT:
        return SUFFIXES.get(output.suffix.lower(), "markdown")
    # Other layouts are wider than a terminal, and mostly meant to be copied.
    is_table = options.layout in {None, "table"} and not (options.columns or options.by or options.best)
    return TERMINAL if on_terminal and output is None and is_table else "markdown"
