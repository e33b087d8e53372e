"""How results are to be shown: options of `collect`, which a suite's `report:` block may give as well."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

Layout = Literal["table", "swift", "pivot", "lm-eval"]
Units = Literal["header", "cell"]
_RIVALS = {
    "by": ("best", "top", "layout"),
    "best": ("by", "value", "layout"),
    "columns": ("by", "value", "layout"),
}
"""By each option those of a suite's `report:` block that would keep it from being shown."""


class ReportOptions(BaseModel):
    """What is shown and how; a field that nobody set leaves the choice to the report."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    layout: Layout | None = None
    """Form of the tables; None is `table`."""
    columns: tuple[str, ...] = ()
    """Keys of the columns to show, in this order; empty for those that have something to say."""
    by: tuple[str, ...] = ()
    """Arguments that make the rows of a pivot table, and the last of several its columns."""
    value: tuple[str, ...] = ()
    """Keys of the figures in a pivot's cells."""
    units: Units = "header"
    """Where a pivot table writes the units of its figures: once in the header, or in each cell (`19362MiB`)."""
    row_spans: bool = False
    """Whether Markdown has pivot tables as HTML, whose cells span rows."""
    headers: dict[str, str] = {}
    """Other headers for columns, by their keys."""
    full: bool = False
    """Whether the JSON report has the whole record of each job."""
    best: str | None = None
    """Key of the figure by which experiments are ranked."""
    top: int | None = Field(default=None, ge=1)
    """How many of the ranked experiments are shown."""

    def over(self, below: ReportOptions) -> ReportOptions:
        """Return these options with those of `below` where nothing was set here."""
        given = {name: getattr(self, name) for name in self.model_fields_set}
        rivals = {rival for name in given for rival in _RIVALS.get(name, ())}
        if below.layout == "pivot":
            # Its rows are those of `by` as well, and other layouts have no columns of its figures.
            rivals -= {"layout"} if "by" in given else set()
            rivals |= {"by", "value"} if self.layout not in {None, "pivot"} else set()
        kept = {name: getattr(below, name) for name in below.model_fields_set - rivals}
        return ReportOptions(**(kept | given))
