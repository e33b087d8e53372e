"""Rows are ranked by a figure, and incomplete ones never before complete ones."""

from __future__ import annotations

from dataclasses import replace

from hpcbench.report.columns import EVAL_LOSS, MEMORY
from hpcbench.report.facts import facts_of
from hpcbench.report.layouts import table_columns
from hpcbench.report.ranking import main_column, ranked
from hpcbench.report.rows import Row, merge_repeats
from hpcbench.schemas.states import JobState
from tests.support import report_cases as cases


def rows_of_quickstart() -> tuple[Row, ...]:
    return merge_repeats(facts_of(view) for view in cases.quickstart().suites[0].experiments)


def test_higher_scores_and_lower_losses_come_first() -> None:
    rows = rows_of_quickstart()
    score = main_column(rows, table_columns(rows))
    assert score is not None
    assert score.key == "pig_latin_exact_match"
    assert [row.name for row in ranked(rows, score)] == ["full", "lora-r32", "lora-r4", "baseline"]
    assert [row.name for row in ranked(rows, EVAL_LOSS)] == ["full", "lora-r32", "lora-r4", "baseline"]
    assert [row.name for row in ranked(rows, MEMORY)] == ["lora-r4", "lora-r32", "full", "baseline"]


def test_incomplete_row_comes_after_the_complete_ones_whatever_its_figure() -> None:
    rows = rows_of_quickstart()
    [full] = [row for row in rows if row.name == "full"]
    repeat = replace(full.first, state=JobState.RUNNING)
    halved = [Row(name=row.name, members=(*row.members, repeat)) if row is full else row for row in rows]
    assert [row.name for row in ranked(halved, EVAL_LOSS)] == ["lora-r32", "lora-r4", "baseline", "full"]


def test_column_that_is_asked_for_ranks() -> None:
    rows = rows_of_quickstart()
    column = main_column(rows, table_columns(rows), "memory_peak_gib")
    assert column is not None
    assert column.key == "memory_peak_gib"


def test_rows_without_figures_keep_their_order() -> None:
    rows = merge_repeats(
        facts_of(view) for view in cases.tuner().suites[0].experiments if view.name in {"rslora", "lora+"}
    )
    assert main_column(rows, table_columns(rows)) is None
    assert ranked(rows, None) == rows
