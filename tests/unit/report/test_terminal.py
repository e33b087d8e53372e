"""The table that ends a `submit --wait`, on wide, narrow, colourless and ASCII terminals."""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from rich.console import Console

from hpcbench.report.terminal import render_terminal
from hpcbench.schemas.collection import Collection, ExperimentView, SuiteView
from hpcbench.schemas.report_options import ReportOptions
from tests.conftest import Golden
from tests.support import report_cases as cases
from tests.support import report_parts as parts
from tests.support import report_sweeps as sweeps


def printed(collection: Collection, *, width: int, encoding: str = "utf-8") -> str:
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding=encoding, newline="\n")
    Console(file=stream, width=width, force_terminal=False, color_system=None).print(
        render_terminal(collection), crop=False
    )
    stream.flush()
    text = raw.getvalue().decode(encoding)
    return "".join(f"{line.rstrip()}\n" for line in text.splitlines())


def small_sweep() -> Collection:
    return sweeps.sweep(repeats=1)


@pytest.mark.parametrize("width", [60, 80, 120, 200])
@pytest.mark.parametrize("case", [cases.quickstart, cases.tuner, cases.repeats, sweeps.tuners, small_sweep])
def test_table_fits_the_terminal(case: Callable[[], Collection], width: int) -> None:
    text = printed(case(), width=width)
    assert max(len(line) for line in text.splitlines() if not line.startswith("  next: ")) <= width


@pytest.mark.parametrize("case", [cases.quickstart, cases.tuner, cases.repeats, sweeps.tuners])
def test_every_row_is_shown_where_there_are_not_many(case: Callable[[], Collection]) -> None:
    text = printed(case(), width=80)
    for view in case().suites[0].experiments:
        assert (view.base_experiment or view.name) in text


def test_terminal_text_is_the_golden_one(golden: Golden) -> None:
    golden("report/quickstart.terminal.txt", printed(cases.quickstart(), width=110))
    golden("report/tuner.terminal.txt", printed(cases.tuner(), width=110))
    golden("report/tuner.terminal.80.txt", printed(cases.tuner(), width=80))


@pytest.mark.parametrize("width", [40, 60, 80, 100, 120])
@pytest.mark.parametrize("case", [cases.quickstart, cases.tuner, cases.repeats, sweeps.tuners, small_sweep])
def test_scores_outlast_losses_and_these_outlast_settings(case: Callable[[], Collection], width: int) -> None:
    gone = left_out(printed(case(), width=width))
    for score in (name for name in gone if name.rpartition(" ")[2] in {"exact_match", "acc_norm", "acc"}):
        assert gone.index("eval loss") < gone.index(score)
    for setting in ("tuner", "learning_rate", "batch_size", "lora_rank"):
        if "eval loss" in gone and setting in gone:
            assert gone.index(setting) < gone.index("eval loss")
    assert "state" not in gone


def left_out(text: str) -> list[str]:
    """Return the columns that a report says it leaves out, in the order in which they had to go."""
    found = re.findall(r"(?<!; )not shown here: ([^;]*); see the report", " ".join(text.split()))
    return found[0].split(", ") if found else []


def test_narrow_terminal_says_what_it_leaves_out() -> None:
    text = printed(cases.tuner(), width=80)
    assert "eval" in text
    assert "exact_match" in text
    assert "not shown here: params M, train speed (tokens/s)" in text


def test_of_a_large_sweep_the_best_rows_are_shown_and_the_others_counted() -> None:
    text = printed(sweeps.sweep(), width=100)
    rows = [line for line in text.splitlines() if "\N{MULTIPLICATION SIGN}3 " in line]
    assert len(rows) == 20
    scores = [float(line.split(" ± ")[0].split()[-1]) for line in rows]
    assert scores == sorted(scores, reverse=True)
    assert (
        "20 of 100 rows, the best by gsm8k exact_match; not shown here: 52 completed, 18 with repeats that did not all "
        "complete, 10 out_of_memory; see the report"
    ) in " ".join(text.split())


def test_rows_with_unfinished_repeats_are_never_among_the_best() -> None:
    text = printed(cases.sweep(repeats=3, unfinished=1), width=200)
    assert "79 completed, 1 with repeats that did not all complete" in text
    assert not any("pending" in line for line in text.splitlines()[4:])


def test_failures_of_one_cause_are_told_once() -> None:
    text = printed(sweeps.sweep(), width=200)
    assert text.count("CUDA out of memory") == 1
    assert "train and 27 more: CUDA out of memory" in text
    assert "  next: hpcbench why sweep --state out_of_memory\n" in text


def test_ascii_terminal_gets_plain_marks() -> None:
    text = printed(cases.repeats(), width=110, encoding="ascii")
    assert "0.453 +- 0.023" in text
    assert "lora-r4 x3" in text


def test_empty_collection_says_so() -> None:
    assert "No experiments found." in printed(Collection(suites=(), collected_at="never"), width=80)


def test_brackets_in_names_are_no_markup() -> None:
    job = parts.make_job("[red]a[/red]", "train", suite="s")
    view = ExperimentView(suite="s", name="[red]a[/red]", cmd="sft", main=job)
    collection = Collection(
        suites=(SuiteView(name="[b]s", experiments=(view,)),), collected_at="never", warnings=("[x]",)
    )
    text = printed(collection, width=100)
    assert "[red]a[/red]" in text
    assert "[b]s" in text
    assert "[x]" in text


def with_report(collection: Collection, **options: Any) -> Collection:
    suite = replace(collection.suites[0], report=ReportOptions(**options))
    return replace(collection, suites=(suite,))


def test_the_columns_that_a_suite_names_are_shown_in_their_order_under_their_headers() -> None:
    options = {"columns": ("eval_loss", "name", "train_loss"), "headers": {"train_loss": "of training"}}
    text = printed(with_report(cases.tuner(), **options), width=120)
    head = next(line for line in text.splitlines() if "of training" in line)
    assert head.split() == ["experiment", "loss", "of", "training", "state"]


def test_columns_that_no_experiment_has_leave_the_usual_ones() -> None:
    assert printed(with_report(cases.tuner(), columns=("nothing",)), width=120) == printed(cases.tuner(), width=120)


@pytest.mark.parametrize("options", [{"layout": "pivot"}, {"by": ("lora_rank",)}, {"best": "eval_loss"}])
def test_what_shows_other_tables_of_a_suite_is_named(options: dict[str, Any]) -> None:
    text = printed(with_report(cases.tuner(), **options), width=120)
    name = cases.tuner().suites[0].name
    assert f"the tables that the suite asks for: hpcbench collect {name} --format markdown" in text
