"""What a report says of evals beside their scores: cut prompts, groups without a score, figures that are not numbers."""

from __future__ import annotations

import json
from typing import Any

from hpcbench.report import render
from hpcbench.report.eval_warnings import eval_warnings, figure_warnings
from hpcbench.report.facts import facts_of
from hpcbench.report.rows import merge_repeats
from hpcbench.report.score_columns import eval_columns
from hpcbench.report.table import build_table
from hpcbench.report.task_tables import task_tables
from hpcbench.schemas.collection import Collection, ExperimentView, SuiteView
from hpcbench.schemas.metrics import CommandMetrics, EvalMetrics, TaskResult
from tests.support import report_parts as parts

NO_SCORE = "the group's score is defined by acc, which none of its tasks has: they report exact_match"


def baseline(name: str, metrics: EvalMetrics) -> ExperimentView:
    job = parts.make_job(name, f"eval-{metrics.dataset}", suite="s", cmd="eval", args=parts.QWEN, metrics=metrics)
    return ExperimentView(suite="s", name=name, cmd="eval", evals=(job,))


def single(value: float = 0.5, **row: Any) -> EvalMetrics:
    """Return the metrics of gsm8k whose one row is changed."""
    metrics = parts.eval_metrics("gsm8k", "exact_match,none", value)
    return metrics.model_copy(update={"tasks": {"gsm8k": metrics.tasks["gsm8k"].model_copy(update=row)}})


def group(first: float, second: float, **changes: Any) -> EvalMetrics:
    """Return the metrics of a group of two tasks without a score."""
    tasks = {
        name: TaskResult(
            metrics={"exact_match,none": value, "exact_match_stderr,none": 0.01},
            num_samples=count,
            num_fewshot=0,
            higher_is_better={"exact_match": True},
            primary_metric="exact_match,none",
        )
        for name, value, count in (("one", first, 100), ("two", second, 50))
    }
    return EvalMetrics(
        dataset="both", primary_task="both", tasks=tasks, lm_eval_version="0.4.13", unknown={"primary_metric": NO_SCORE}
    ).model_copy(update=changes)


def cells(*views: ExperimentView) -> list[list[str]]:
    rows = merge_repeats(facts_of(view) for view in views)
    columns = eval_columns(facts for row in rows for facts in row.members)
    return [[cell.text for cell in row] for row in build_table(columns, rows).cells]


def warnings(*views: ExperimentView) -> list[str]:
    return eval_warnings(facts_of(view) for view in views)


def collection(*views: ExperimentView) -> Collection:
    return Collection(suites=(SuiteView(name="s", experiments=views),), collected_at=parts.COLLECTED_AT)


def test_cut_prompts_are_in_the_cell_and_in_a_warning() -> None:
    cut = single(num_fewshot=5, num_prompts_cut=37, prompt_limit_tokens=256)
    views = baseline("a", cut), baseline("b", cut)

    assert cells(*views) == [["0.500 (37 cut)"], ["0.500 (37 cut)"]]
    advice = "lower num_fewshot or gen_kwargs.max_gen_toks, or raise max_length where the model allows it"
    text = f"gsm8k: 37 of 200 5-shot prompts did not fit and were cut to the last 256 tokens (a, b); {advice}"
    assert warnings(*views) == [text]


def test_cells_name_the_shots_where_rows_differ() -> None:
    views = baseline("a", single(num_fewshot=5)), baseline("b", single(num_fewshot=0))

    assert cells(*views) == [["0.500 (5-shot)"], ["0.500 (0-shot)"]]
    assert cells(views[0]) == [["0.500"]]


def test_a_group_without_a_score_shows_its_tasks_and_the_reason() -> None:
    views = baseline("a", group(0.25, 0.5)), baseline("b", group(0.5, 0.125))

    assert cells(*views) == [["see its tasks"], ["see its tasks"]]
    assert warnings(*views) == [f"both: no score: {NO_SCORE} (a, b)"]
    (table,) = task_tables(merge_repeats(facts_of(view) for view in views))
    assert table.title == "both: its tasks"
    assert [column.header for column in table.columns] == ["task", "metric", "documents", "a", "b"]
    assert [[cell.text for cell in row] for row in table.cells] == [
        ["one", "exact_match", "100", "0.250 ± 0.010", "0.500 ± 0.010"],
        ["two", "exact_match", "50", "0.500 ± 0.010", "0.125 ± 0.010"],
    ]
    assert [[cell.best for cell in row[3:]] for row in table.cells] == [[False, True], [True, False]]


def test_every_format_has_the_tasks_of_a_group_without_a_score() -> None:
    found = collection(baseline("a", group(0.25, 0.5)))

    assert "### both: its tasks" in render(found, format="markdown")
    assert "<h3>both: its tasks</h3>" in render(found, format="html")
    assert "both/one_exact_match" in render(found, format="csv").splitlines()[0]
    values = json.loads(render(found, format="json"))["suites"][0]["experiments"][0]["evals"]
    assert (values["both/one_exact_match"], values["both/two_exact_match"]) == (0.25, 0.5)
    assert "mean" not in str(sorted(values)), "no figure is made up for the group"


def test_a_group_with_the_mean_over_its_documents_says_so_and_shows_its_tasks() -> None:
    whole = group(0.25, 0.5).tasks["one"].model_copy(update={"num_samples": 150, "primary_metric": None})
    tasks = {"both": whole, **group(0.25, 0.5).tasks}
    view = baseline("a", group(0, 0, tasks=tasks, primary_metric="exact_match,none", mean_over_documents=True))

    text = render(collection(view), format="markdown")

    assert "the mean over all documents of its tasks, since lm-eval defines no score for this group" in text
    assert "### both: its tasks" in text


def test_a_group_with_a_score_of_lm_evals_has_no_table_of_tasks() -> None:
    assert task_tables(merge_repeats([facts_of(baseline("a", single()))])) == ()


def test_what_an_eval_notices_is_a_warning_once() -> None:
    noticing = single().model_copy(update={"notices": ("gsm8k: examples may leak",)})

    assert warnings(baseline("a", noticing), baseline("b", noticing)) == ["gsm8k: examples may leak (a, b)"]


def test_figures_of_programs_that_are_not_numbers_are_told() -> None:
    command = CommandMetrics(values={"loss": None}, unknown={"loss": "reported as NaN"})
    job = parts.make_job("a", "train", suite="s", cmd="command", metrics=command)
    view = ExperimentView(suite="s", name="a", cmd="command", main=job)

    assert figure_warnings([facts_of(view)]) == ["figure loss: reported as NaN (a)"]
