"""In which format `collect` reports: the one that was named, else by the ending of the file, else by who reads it.

In: what was typed, and whether standard output is a terminal. Out: a format's name. It renders nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from hpcbench.errors import PlanError

if TYPE_CHECKING:
    from hpcbench.schemas.report_options import ReportOptions

TERMINAL = "terminal"
FORMATS = (TERMINAL, "markdown", "html", "latex", "csv", "long", "json")
OTHER_NAMES = {"md": "markdown", "htm": "html", "tex": "latex"}
SUFFIXES = {
    ".md": "markdown",
    ".markdown": "markdown",
    ".txt": "markdown",
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
        PlanError: an unknown format was named, the ending of a file is that of no format, or the terminal's report is
            wanted with columns or a layout of other formats.
    """
    from hpcbench.cli.selection import choose_word

    # Other layouts are wider than a terminal, and mostly meant to be copied.
    is_table = options.layout in {None, "table"} and not (options.columns or options.by or options.best)
    if named is not None:
        chosen = choose_word("--format", named, FORMATS, other_names=OTHER_NAMES)
        if chosen == TERMINAL and not is_table:
            raise PlanError(
                "--format terminal: chooses its columns by itself", hint="take --format markdown for others"
            )
        return chosen
    if output is not None and output != STANDARD_OUTPUT:
        return format_of_file(output, SUFFIXES)
    return TERMINAL if on_terminal and output is None and is_table else "markdown"


def format_of_file(file: Path, formats: Mapping[str, str]) -> str:
    """Return the format of a file by its ending, Markdown where it has none.

    Raises:
        PlanError: no format has this ending.
    """
    ending = file.suffix.lower()
    if ending in {"", *formats}:
        return formats.get(ending, "markdown")
    raise PlanError(
        f"{file}: no format has this ending\n  expected: {', '.join(formats)}", hint="name the format with --format"
    )
