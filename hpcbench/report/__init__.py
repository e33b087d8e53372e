"""Reports: a Collection in, text out; no disk but the shipped HTML template, no clock, no scheduler."""

from __future__ import annotations

from typing import Literal

from hpcbench.errors import ReportError
from hpcbench.report.artifacts import ReportContext
from hpcbench.report.choose import refuse_unknown
from hpcbench.report.csv_table import render_csv
from hpcbench.report.document import build_document
from hpcbench.report.json_report import render_json
from hpcbench.report.markdown import render_markdown
from hpcbench.schemas.collection import Collection
from hpcbench.schemas.report_options import ReportOptions

Format = Literal["markdown", "csv", "json", "html"]

NO_OPTIONS = ReportOptions()
NO_CONTEXT = ReportContext()

__all__ = ["Format", "ReportContext", "render"]


def render(
    collection: Collection,
    *,
    format: Format,  # noqa: A002
    options: ReportOptions = NO_OPTIONS,
    context: ReportContext = NO_CONTEXT,
) -> str:
    """Return the report: markdown and html are for people; csv (a row per experiment) and json hold raw values.

    Raises:
        ReportError: a layout was asked of CSV or JSON, which have raw values and no layout.
        PlanError: options name columns that no experiment has, or have no place in the format.
    """
    if options.layout not in {None, "table"} and format in {"csv", "json"}:
        raise ReportError(
            f"--layout {options.layout}: {format} holds raw values and has no layout",
            hint="leave out --layout, or take --format markdown or html",
        )
    refuse_unknown(collection, options, format=format)
    match format:
        case "markdown":
            return render_markdown(build_document(collection, options), context.pictures)
        case "csv":
            return render_csv(collection, options.columns)
        case "json":
            return render_json(collection)
        case "html":
            from hpcbench.report.page import render_page

            return render_page(collection, options, context)
