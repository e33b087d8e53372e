"""What the page shows, as one JSON object; the program in `templates/report/` reads nothing else.

In: a Collection and options. Out: plain values without control characters, NaN or Infinity.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from hpcbench.report.artifacts import ReportContext
from hpcbench.report.choose import KnownColumns, names_columns
from hpcbench.report.column import Column
from hpcbench.report.document import Document, SuiteSection, build_document
from hpcbench.report.escape import code_spans, one_line
from hpcbench.report.facts import Facts, facts_of
from hpcbench.report.json_report import plain
from hpcbench.report.layouts import table_columns
from hpcbench.report.page.best import best_of
from hpcbench.report.page.columns import OWN_PLACES, PageColumn, page_columns
from hpcbench.report.page.curves import curves_of
from hpcbench.report.page.details import details_of
from hpcbench.report.page.experiments import experiment_id, experiments_of
from hpcbench.report.page.failures import failures_payload
from hpcbench.report.ranking import main_column, ranked
from hpcbench.report.rows import Row, merge_repeats
from hpcbench.schemas.collection import Collection, SuiteView
from hpcbench.schemas.report_options import ReportOptions
from hpcbench.schemas.request import TRAININGS
from hpcbench.storage.json_files import JsonObject

VERSION = 1
NO_CONTEXT = ReportContext()


class _Asked:
    """What the options of one suite ask for, its keys as those of columns."""

    def __init__(self, options: ReportOptions, experiments: Sequence[Facts]) -> None:
        self.options = options
        self._known = KnownColumns(experiments) if names_columns(options) else None
        self.columns = self._columns(options.columns)

    def payload(self) -> JsonObject:
        """Return the options that were set, for the program of the page."""
        given = self.options.model_dump(mode="json", exclude_defaults=True, exclude={"headers"})
        best = self._columns((self.options.best,)) if self.options.best is not None else []
        keys = {
            "columns": [column.key for column in self.columns if column.key not in OWN_PLACES],
            "by": [column.key for column in self._columns(self.options.by)],
            "value": [column.key for column in self._columns(self.options.value)],
            "best": best[0].key if best else None,
        }
        return given | {name: found for name, found in keys.items() if name in given}

    def _columns(self, keys: Sequence[str]) -> list[Column]:
        if self._known is None:
            return []
        return [column for key in self._known.join(keys) for column in self._known.find(key)]


def build_payload(
    collection: Collection,
    options: ReportOptions,
    document: Document | None = None,
    context: ReportContext = NO_CONTEXT,
) -> JsonObject:
    """Return everything that the page shows; `document` is that of the same collection where it is built already."""
    document = build_document(collection, options) if document is None else document
    rows_of = [merge_repeats(facts_of(view) for view in suite.experiments) for suite in collection.suites]
    asked = [
        _Asked(options.over(suite.report), [facts for row in rows for facts in row.members])
        for suite, rows in zip(collection.suites, rows_of, strict=True)
    ]
    columns = page_columns(rows_of, [of_suite.columns for of_suite in asked])
    headers = {key: header for of_suite in reversed(asked) for key, header in of_suite.options.headers.items()}
    suites = [
        _suite(suite, section, rows, columns, report=of_suite.payload())
        for suite, section, rows, of_suite in zip(collection.suites, document.suites, rows_of, asked, strict=True)
    ]
    payload = {
        "version": VERSION,
        "collected_at": document.collected_at,
        "warnings": [one_line(warning) for warning in document.warnings],
        "suites": suites,
        "columns": [column.payload(headers) for column in columns],
        "experiments": [entry for rows in rows_of for entry in experiments_of(rows, columns)],
        **_beyond_figures(collection, rows_of, options=options, context=context),
    }
    found = plain(payload)
    assert isinstance(found, dict)  # noqa: S101 -- plain keeps the kind of a mapping
    return found


def _beyond_figures(
    collection: Collection,
    rows_of: Sequence[Sequence[Row]],
    *,
    options: ReportOptions,
    context: ReportContext,
) -> JsonObject:
    """Return curves, details and failures; the rows of each suite come first that its main figure ranks first."""
    curves: JsonObject = {}
    details: JsonObject = {}
    ranks: list[JsonObject] = []
    for suite, rows in zip(collection.suites, rows_of, strict=True):
        rank_by = main_column(rows, table_columns(rows), options.over(suite.report).best)
        order = ranked(rows, rank_by)
        found = curves_of(order, context.artifacts)
        curves |= {experiment_id(facts): series for facts, series in found}
        members = [facts for row in order for facts in row.members]
        details |= {experiment_id(facts): told for facts, told in details_of(members, context)}
        trained = sum(facts.view.main is not None and facts.view.cmd in TRAININGS for facts in members)
        name = None if rank_by is None else rank_by.key
        ranks.append({"suite": one_line(suite.name), "by": name, "with_curves": len(found), "trained": trained})
    failures = [
        {"suite": one_line(suite.name), **group}
        for suite in collection.suites
        for group in failures_payload([job for view in suite.experiments for job in view.jobs])
    ]
    return {"curves": {"ranks": ranks, "series": curves}, "details": details, "failures": failures}


def _suite(
    suite: SuiteView,
    section: SuiteSection,
    rows: Sequence[Row],
    columns: Sequence[PageColumn],
    *,
    report: JsonObject,
) -> JsonObject:
    counts = Counter(facts_of(view).state.value for view in suite.experiments)
    return {
        "name": one_line(suite.name),
        "counts": dict(counts.most_common()),
        "shared": one_line(section.shared),
        "cost": one_line(section.cost),
        "best": best_of(rows, columns),
        "notes": [code_spans(one_line(note)) for note in section.notes],
        "warnings": [one_line(warning) for warning in section.warnings],
        "environment": [[one_line(label), one_line(value)] for label, value in section.environment],
        "report": report,
    }
