"""Reports: a Collection in, text out; no disk but the shipped HTML template, no clock, no scheduler."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from hpcbench.errors import ReportError
from hpcbench.report.artifacts import ReportContext
from hpcbench.schemas.collection import Collection
from hpcbench.schemas.report_options import ReportOptions

Format = Literal["markdown", "csv", "long", "json", "html", "latex"]

NO_OPTIONS = ReportOptions()
NO_CONTEXT = ReportContext()

__all__ = ["Format", "ReportContext", "render", "render_parts"]


def render(
    collection: Collection,
    *,
    format: Format,  # noqa: A002
    options: ReportOptions = NO_OPTIONS,
    context: ReportContext = NO_CONTEXT,
) -> str:
    """Return the report; see `render_parts`."""
    return "".join(render_parts(collection, format=format, options=options, context=context))


def render_parts(
    collection: Collection,
    *,
    format: Format,  # noqa: A002
    options: ReportOptions = NO_OPTIONS,
    context: ReportContext = NO_CONTEXT,
) -> Iterable[str]:
    """Return the report: markdown, html and latex are for people.

    csv (a row per experiment), long (a row per figure) and json hold raw values; json, which is by far the largest, is
    made as its parts are taken.

    Raises:
        ReportError: a layout was asked of a format that has raw values and no layout, or the whole records of another
            than json.
        PlanError: options name columns that no experiment has, or have no place in the format.
    """
    if options.layout not in {None, "table"} and format in {"csv", "long", "json"}:
        raise ReportError(
            f"--layout {options.layout}: {format} holds raw values and has no layout",
            hint="leave out --layout, or take --format markdown, html or latex",
        )
    if options.full and format != "json":
        raise ReportError(
            f"--full: {format} has no records of jobs in it",
            hint="take --format json with it, or leave it out",
        )
    # Verbs that show no report take single modules of this room, and none waits for what it does not need.
    from hpcbench.report.choose import refuse_unknown

    refuse_unknown(collection, options, format=format)
    match format:
        case "markdown":
            from hpcbench.report.document import build_document
            from hpcbench.report.markdown import render_markdown

            return (render_markdown(build_document(collection, options), context.pictures),)
        case "csv":
            from hpcbench.report.csv_table import render_csv

            return (render_csv(collection, options.columns),)
        case "json":
            from hpcbench.report.json_report import json_parts

            return json_parts(collection, full=options.full)
        case "long":
            from hpcbench.report.long_table import render_long

            return (render_long(collection),)
        case "latex":
            from hpcbench.report.document import build_document
            from hpcbench.report.latex import render_latex

            return (render_latex(build_document(collection, options)),)
        case "html":
            from hpcbench.report.page import render_page

            return (render_page(collection, options, context),)
