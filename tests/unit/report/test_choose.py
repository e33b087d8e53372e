"""Reports of chosen columns, grids and rankings: what they show, what they leave out, and which options are refused."""

from __future__ import annotations

import csv
import io
from dataclasses import replace
from typing import Any

import pytest

from hpcbench.errors import PlanError
from hpcbench.report import Format, render
from hpcbench.report.document import SuiteSection, build_document
from hpcbench.schemas.collection import Collection, SuiteView
from hpcbench.schemas.report_options import ReportOptions
from tests.support import report_cases as cases


def section(collection: Collection, **options: Any) -> SuiteSection:
    (found,) = build_document(collection, ReportOptions(**options)).suites
    return found


def texts(found: SuiteSection, number: int = 0) -> list[list[str]]:
    """Return a table: its header, then its rows."""
    table = found.tables[number]
    return [[column.header for column in table.columns], *([cell.text for cell in cells] for cells in table.cells)]


def with_report(collection: Collection, **options: Any) -> Collection:
    (suite,) = collection.suites
    return replace(collection, suites=(replace(suite, report=ReportOptions(**options)),))


def test_columns_are_shown_in_the_order_asked_for() -> None:
    header, first, *_ = texts(section(cases.tuner(), columns=("eval_loss", "gsm8k", "lora_rank", "use_dora")))
    assert header == ["experiment", "eval loss", "gsm8k exact_match,strict-match", "lora_rank", "use_dora"]
    assert first == ["lora", "0.5312", "0.462 ± 0.014", "8", "False"]


def test_a_name_with_a_comma_may_be_typed_at_the_prompt() -> None:
    words = ("eval_loss", "gsm8k_exact_match", "strict-match", "arc")
    assert texts(section(cases.tuner(), columns=words))[0][2:] == ["gsm8k exact_match,strict-match", "arc acc_norm"]


def test_csv_has_the_columns_asked_for() -> None:
    options = ReportOptions(columns=("experiment", "repeat", "lora_rank", "gsm8k"))
    rows = list(csv.reader(io.StringIO(render(cases.sweep(), format="csv", options=options))))
    assert rows[0] == ["experiment", "repeat", "lora_rank", "gsm8k_exact_match,strict-match"]
    assert rows[2][:3] == ["q-r=4-lr=1e-05-drop=0-seed1", "1", "4"]
    assert len(rows) == 301


def test_a_grid_has_a_row_and_a_column_per_value_in_order() -> None:
    table = texts(section(cases.sweep(), by=("lora_rank", "learning_rate"), value=("gsm8k",)))
    assert table[0] == ["lora_rank", *(f"learning_rate {rate}" for rate in ("1e-5", "5e-5", "1e-4", "5e-4", "1e-3"))]
    assert [row[0] for row in table[1:]] == ["4", "8", "16", "32"]
    assert table[3][3] == "0.655 ± 0.046 (n=15)"


def test_a_cell_of_a_grid_that_is_not_complete_says_so_and_does_not_win() -> None:
    (table,) = section(cases.sweep(unfinished=25), by=("lora_rank",), value=("gsm8k",)).tables
    assert [cells[1].text[-12:] for cells in table.cells] == [*[" 0.060 (n=75)"[1:]] * 3, "(n=25 of 75)"]
    assert [cells[1].best for cells in table.cells] == [False, False, True, False]


def test_a_grid_says_what_its_cells_are_means_over() -> None:
    notes = section(cases.sweep(), by=("lora_rank", "learning_rate"), value=("gsm8k",)).notes
    assert notes[0].startswith("a cell is the mean ± sample standard deviation over lora_dropout_p, repeats; ")


def test_a_grid_has_a_table_per_figure_and_the_first_score_by_itself() -> None:
    titles = [table.title for table in section(cases.sweep(), by=("lora_rank",), value=("gsm8k", "eval_loss")).tables]
    assert titles == ["gsm8k exact_match,strict-match by lora_rank", "eval loss by lora_rank"]
    assert [table.title for table in section(cases.sweep(), by=("lora_rank",)).tables] == titles[:1]


def test_combinations_that_were_not_run_are_empty() -> None:
    collection = cases.sweep()
    (suite,) = collection.suites
    kept = replace(suite, experiments=tuple(view for view in suite.experiments if "q-r=4-lr=1e-05-" not in view.name))
    table = texts(section(replace(collection, suites=(kept,)), by=("lora_rank", "learning_rate")))
    assert table[1][:2] == ["4", ""]


def test_the_best_come_first_with_settings_and_checkpoint() -> None:
    found = section(cases.sweep(), best="gsm8k", top=2)
    header, *rows = texts(found)
    assert header[:2] == ["experiment", "gsm8k exact_match,strict-match"]
    assert {"lora_rank", "learning_rate", "lora_dropout_p", "eval loss", "checkpoint"} <= set(header)
    assert [row[0] for row in rows] == ["q-r=16-lr=0.0001-drop=0.05", "q-r=16-lr=0.0001-drop=0"]
    assert found.notes[0] == "left out: 98 rows that rank lower"


def test_the_checkpoint_of_repeats_is_that_of_the_best_one() -> None:
    collection = cases.sweep()
    (suite,) = collection.suites
    experiments = []
    for view in suite.experiments[:3]:
        assert view.main is not None
        assert view.main.record is not None
        metrics = view.main.record.metrics
        assert metrics is not None
        metrics = metrics.model_copy(update={"best_checkpoint": "checkpoints/best"})
        record = view.main.record.model_copy(update={"metrics": metrics})
        experiments.append(replace(view, main=replace(view.main, record=record)))
    kept = Collection(suites=(replace(suite, experiments=tuple(experiments)),), collected_at="now")
    for best, seed in (("gsm8k", 2), ("train_samples_per_second", 0)):
        _, row = texts(section(kept, best=best))
        assert row[-1] == f"/shared/logs/sweep/q-r=4-lr=1e-05-drop=0-seed{seed}/train/checkpoints/best"


def test_lower_losses_are_better_and_incomplete_repeats_are_not_ranked() -> None:
    found = section(cases.sweep(unfinished=1), best="eval_loss", top=1)
    assert texts(found)[1][0] == "q-r=16-lr=0.0001-drop=0.05"
    assert found.notes[1] == (
        "not ranked, since the figure is missing or not all repeats have it: q-r=32-lr=0.001-drop=0.3"
    )


REFUSED = (
    (
        {"columns": ("lora_rnk",)},
        "--columns: no column 'lora_rnk'\n  expected: gsm8k, arc, ceval, experiment, state, ",
        "did you mean 'lora_rank'?",
    ),
    ({"by": ("gsm8k",)}, "--by: no setting 'gsm8k'\n  expected: experiment, ", None),
    (
        {"by": ("lora_rank",), "value": ("gsm9k",)},
        "--value: no figure 'gsm9k'\n  expected: gsm8k, ",
        "did you mean 'gsm8k'?",
    ),
    ({"best": "gsm9k"}, "--best: no figure 'gsm9k'\n  expected: gsm8k, ", "did you mean 'gsm8k'?"),
    ({"best": "mfu"}, "--best: nothing says whether a higher or a lower mfu is better\n  expected: gsm8k, ", None),
    ({"top": 3}, "--top: of what?", "name the figure that ranks experiments, for example --best eval_loss"),
    (
        {"value": ("gsm8k",)},
        "--value: no table to put it into",
        "name the settings that make its rows and columns with --by",
    ),
    (
        {"layout": "swift", "columns": ("gsm8k",)},
        "--columns: the layout swift has its own columns and rows",
        "leave --layout out",
    ),
    (
        {"by": ("lora_rank",), "best": "gsm8k"},
        "--by and --best: a table is either of the two",
        "leave one of them out",
    ),
)


@pytest.mark.parametrize(("options", "message", "hint"), REFUSED)
def test_what_means_nothing_is_refused(options: dict[str, Any], message: str, hint: str | None) -> None:
    with pytest.raises(PlanError) as refused:
        render(cases.tuner(), format="markdown", options=ReportOptions(**options))
    assert refused.value.message.startswith(message)
    assert refused.value.hint == hint


@pytest.mark.parametrize(
    ("format_", "options", "message", "others"),
    [
        ("json", {"columns": ("gsm8k",)}, "--columns: json holds everything", ("csv", "markdown", "html")),
        ("long", {"by": ("lora_rank",)}, "--by: long holds everything", ("markdown", "html")),
        ("csv", {"best": "gsm8k"}, "--best: csv holds every experiment as it is", ("markdown", "html")),
    ],
)
def test_options_without_a_place_in_a_format_are_refused_with_formats_that_take_them(
    format_: Format, options: dict[str, Any], message: str, others: tuple[Format, ...]
) -> None:
    with pytest.raises(PlanError) as refused:
        render(cases.tuner(), format=format_, options=ReportOptions(**options))
    assert refused.value.message == message
    assert refused.value.hint == f"take --format {' or '.join((', '.join(others[:-1]), others[-1]))}"
    for other in others:
        assert render(cases.tuner(), format=other, options=ReportOptions(**options))


def test_a_suite_shows_its_own_columns_and_typed_options_win() -> None:
    collection = with_report(cases.tuner(), columns=("eval_loss",), headers={"eval_loss": "loss"})
    assert texts(section(collection))[0] == ["experiment", "loss"]
    assert texts(section(collection, columns=("gsm8k",)))[0] == ["experiment", "gsm8k exact_match,strict-match"]
    assert "loss" not in render(collection, format="csv").splitlines()[0].split(",")


def test_a_key_of_a_suites_own_that_it_does_not_have_is_a_warning() -> None:
    found = section(with_report(cases.tuner(), columns=("evalloss", "gsm8k")))
    assert texts(found)[0] == ["experiment", "gsm8k exact_match,strict-match"]
    assert found.warnings[0] == ("report: columns: no column 'evalloss', which is left out; did you mean 'eval_loss'?")


def test_a_column_of_one_suite_is_known_in_a_report_of_several() -> None:
    (sweep,) = cases.sweep().suites
    empty = SuiteView(name="empty", experiments=())
    collection = Collection(suites=(*cases.quickstart().suites, sweep, empty), collected_at="now")
    first, second, _ = build_document(collection, ReportOptions(columns=("gsm8k",))).suites
    assert [column.header for column in first.tables[0].columns] == ["experiment"]
    assert [column.header for column in second.tables[0].columns] == ["experiment", "gsm8k exact_match,strict-match"]
