"""A report as values: tables of cells and the text around them, not yet escaped, the same for Markdown and HTML."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from hpcbench.errors import ReportError, plural
from hpcbench.report import columns as c
from hpcbench.report.best_table import best_table, best_table_notes
from hpcbench.report.choose import KnownColumns, choose_columns, find_unknown, names_columns
from hpcbench.report.cost import cost_table, cost_text
from hpcbench.report.environment import environment_lines
from hpcbench.report.facts import Facts, facts_of
from hpcbench.report.grid import grid_notes, grid_table
from hpcbench.report.layouts import (
    SWIFT_DATASETS,
    shared_text,
    swift_columns,
    swift_export_columns,
    table_columns,
)
from hpcbench.report.lm_eval_table import NOTES as LM_EVAL_NOTES
from hpcbench.report.lm_eval_table import left_out_notes, lm_eval_tables
from hpcbench.report.notes_and_warnings import Failure, failures_of, notes_of, others_note, warnings_of
from hpcbench.report.pivot_table import pivot_notes, pivot_table
from hpcbench.report.rows import Row, merge_repeats, row_state_text
from hpcbench.report.table import Table, build_table
from hpcbench.report.task_tables import task_tables
from hpcbench.schemas.collection import Collection, SuiteView
from hpcbench.schemas.report_options import Layout, ReportOptions
from hpcbench.storage.clock import parse_moment

SWIFT_NOTES = (
    (
        "train_loss and eval_loss stand under their right names here; SWIFT 2.x printed the eval loss under "
        "train_loss and the train loss under eval_loss"
    ),
    (
        "train speed counts the samples of all epochs and ranks over the time of the optimizer steps; SWIFT 2.x "
        "counted one epoch over a time that included evaluation and saving, so with epoch=2 its figures are about half"
    ),
    "flash_attn says what ran, True where it was a flash attention; SWIFT 2.x printed what was asked for",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class SuiteSection:
    """All that is said about one suite."""

    name: str
    layout: Layout
    counts: str
    shared: str
    """Settings that no table shows, since all experiments have the same; empty where tables show all."""
    cost: str
    """What all experiments took, in a line; empty where no job has a record."""
    cost_table: Table | None
    """What each of them took; None where no job has a record, and where columns were chosen."""
    tables: tuple[Table, ...]
    notes: tuple[str, ...]
    warnings: tuple[str, ...]
    failures: tuple[Failure, ...]
    environment: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """A whole report."""

    layout: Layout
    collected_at: str
    warnings: tuple[str, ...]
    suites: tuple[SuiteSection, ...]


def build_document(collection: Collection, options: ReportOptions) -> Document:
    """Return the report of a collection in one of the layouts."""
    collected_at = moment_text(collection.collected_at)
    return Document(
        layout=options.layout or "table",
        collected_at=collected_at,
        warnings=collection.warnings,
        suites=tuple(
            _suite_section(suite, collected_at=collected_at, options=options.over(suite.report))
            for suite in collection.suites
        ),
    )


def counts_text(experiments: Sequence[Facts]) -> str:
    """Return `4 experiments: 3 completed, 1 failed`."""
    counts = Counter(facts.state.value for facts in experiments)
    listed = ", ".join(f"{count} {state}" for state, count in counts.most_common())
    number = plural(len(experiments), "experiment")
    return f"{number}: {listed}" if listed else number


def moment_text(moment: str) -> str:
    """Return an ISO 8601 time as `2026-07-01 12:30 UTC`; what is none is returned as it is."""
    parsed = parse_moment(moment)
    return moment if parsed is None else f"{parsed:%Y-%m-%d %H:%M} UTC"


def _suite_section(suite: SuiteView, *, collected_at: str, options: ReportOptions) -> SuiteSection:
    layout = options.layout or "table"
    experiments = [facts_of(view) for view in suite.experiments]
    rows = merge_repeats(experiments)
    pivot_warnings: tuple[str, ...] = ()
    if layout == "swift":
        tables = _swift_tables(suite.name, rows)
        notes = _swift_notes(rows)
    elif layout == "pivot" and experiments:
        pivot, pivot_warnings = _pivot(suite, experiments, options)
        tables, notes = (pivot,), pivot_notes(pivot)
    elif layout == "lm-eval":
        tables, notes = lm_eval_tables(experiments), (*LM_EVAL_NOTES, *left_out_notes(experiments))
    else:
        tables, notes = _chosen_tables(experiments, rows, options)
        tables = tuple(_with_headers(table, options.headers) for table in tables)
    others = others_note(suite)
    return SuiteSection(
        name=suite.name,
        layout=layout,
        counts=f"{counts_text(experiments)}; collected {collected_at}",
        shared=shared_text(rows) if layout == "table" and not options.columns else "",
        cost=cost_text(experiments),
        cost_table=cost_table(rows) if layout == "table" and not names_columns(options) else None,
        tables=tables,
        notes=notes if others is None else (*notes, others),
        warnings=(*_option_warnings(suite, experiments, options), *pivot_warnings, *warnings_of(experiments)),
        failures=failures_of(experiments),
        environment=environment_lines(record for facts in experiments for record in facts.records),
    )


def _pivot(suite: SuiteView, experiments: Sequence[Facts], options: ReportOptions) -> tuple[Table, tuple[str, ...]]:
    """Return the pivot table, and what is wrong with the keys that the suite's file gives for it.

    Raises:
        ReportError: a key that was typed is not a setting or not a figure.
    """
    warnings: list[str] = []
    for name in ("by", "value"):
        try:
            pivot_table(experiments, ReportOptions(**{name: getattr(options, name)}))
        except ReportError as error:
            if getattr(options, name) != getattr(suite.report, name):
                raise
            warnings.append(f"report: {error.message}; the usual ones stand instead")
            options = options.model_copy(update={name: ()})
    table = pivot_table(experiments, options)
    unknown = options.headers.keys() - {column.key for column in table.columns}
    warnings += [f"report: headers: {key}: not a column of the table" for key in sorted(unknown)]
    return table, tuple(warnings)


def _chosen_tables(
    experiments: Sequence[Facts], rows: Sequence[Row], options: ReportOptions
) -> tuple[tuple[Table, ...], tuple[str, ...]]:
    """Return the tables of the layout `table` and their notes: a grid, a ranking, or a row for each experiment."""
    if not rows:
        return (), ()
    if not names_columns(options):
        return _usual_tables(rows)
    known = KnownColumns(experiments)
    chosen = choose_columns(options.columns, known)
    by = choose_columns(options.by, known, "setting")
    usual = next((key for key in known.told if known.find_kind(key, "figure")), "")
    figures = choose_columns(options.value or (usual,), known, "figure")
    if by and figures:
        return tuple(grid_table(figure, by, experiments) for figure in figures), grid_notes(by, figures, experiments)
    ranked = () if options.best is None else known.find_kind(options.best, "figure")
    if ranked and ranked[0].better is not None:
        table = best_table(ranked[0], rows, top=options.top, columns=chosen)
        notes = best_table_notes(ranked[0], rows, top=options.top)
        return (table,), (*notes, *_table_notes(table, table.rows))
    if not options.columns:
        return _usual_tables(rows)
    table = build_table(tuple(({c.NAME.key: c.NAME} | {column.key: column for column in chosen}).values()), rows)
    return (table,), _table_notes(table, rows)


def _usual_tables(rows: Sequence[Row]) -> tuple[tuple[Table, ...], tuple[str, ...]]:
    tables = (build_table(table_columns(rows), rows), *task_tables(rows))
    return tables, _table_notes(tables[0], rows)


def _with_headers(table: Table, headers: Mapping[str, str]) -> Table:
    columns = (replace(column, header=headers.get(column.key, column.header)) for column in table.columns)
    return replace(table, columns=tuple(columns)) if headers else table


def _table_notes(table: Table, rows: Sequence[Row]) -> tuple[str, ...]:
    any_best = any(cell.best for cells in table.cells for cell in cells)
    return notes_of(table.columns, rows, any_best=any_best)


def _option_warnings(suite: SuiteView, experiments: Sequence[Facts], options: ReportOptions) -> tuple[str, ...]:
    """Return the keys of the suite's `report:` block, and those that were typed, that its experiments do not have."""
    asked = [
        *([("report: ", suite.report)] if names_columns(suite.report) or suite.report.headers else []),
        *([("--", options.model_copy(update={"headers": {}}))] if names_columns(options) else []),
    ]
    if not experiments or not asked:
        return ()
    known = KnownColumns(experiments)
    found = {one: source for source, given in reversed(asked) for one in find_unknown(given, known)}
    return tuple(
        f"{source}{one.option}: {one.message}, which is left out; " + (one.hint or f"there are {one.expected}")
        for one, source in found.items()
    )


def _swift_tables(suite: str, rows: Sequence[Row]) -> tuple[Table, ...]:
    exports = [row for row in rows if row.first.view.cmd == "export"]
    others = [row for row in rows if row.first.view.cmd != "export"]
    tables = [build_table(swift_columns(), others, title=_swift_title("sft", suite))] if others or not exports else []
    if exports:
        tables.append(build_table(swift_export_columns(), exports, title=_swift_title("export", suite)))
    return tuple(tables)


def _swift_title(cmd: str, suite: str) -> str:
    return f"=================Printing the {cmd} cmd result of exp {suite}=================="


def _swift_notes(rows: Sequence[Row]) -> tuple[str, ...]:
    notes = list(SWIFT_NOTES)
    datasets = dict.fromkeys(dataset for row in rows for facts in row.members for dataset in facts.evals)
    left_out = [dataset for dataset in datasets if dataset not in SWIFT_DATASETS]
    if left_out:
        notes.append(f"the columns of SWIFT 2.x have no place for {', '.join(left_out)}; the default layout shows them")
    unfinished = [f"{row.name}: {row_state_text(row)}" for row in rows if not row.completed]
    if unfinished:
        notes.append(f"not completed: {'; '.join(unfinished)}")
    return tuple(notes)
