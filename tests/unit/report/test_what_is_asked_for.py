"""What was asked for is what is shown: datasets, settings and typed options mean themselves, and what has no place is said."""

from __future__ import annotations

from dataclasses import replace

import pytest

from hpcbench.errors import PlanError, ReportError
from hpcbench.report.choose import refuse_unknown
from hpcbench.report.document import SuiteSection, build_document
from hpcbench.report.facts import facts_of
from hpcbench.report.layouts import table_columns
from hpcbench.report.ranking import main_column, ranked
from hpcbench.report.rows import Row, merge_repeats
from hpcbench.report.settings import is_setting
from hpcbench.schemas.arguments import CommandArgs
from hpcbench.schemas.collection import Collection, ExperimentView, SuiteView
from hpcbench.schemas.report_options import ReportOptions
from tests.support import report_cases as cases
from tests.support.report_parts import A100, LORA, QWEN, eval_metrics, make_job, train_metrics


def scored(name: str, rank: int, scores: dict[str, float]) -> ExperimentView:
    args = QWEN | LORA | {"lora_rank": rank}
    evals = tuple(
        make_job(name, f"eval-{dataset}", suite="s", cmd="eval", args=args, environment=A100,
                 metrics=eval_metrics(dataset, "acc,none", value, stderr=0.01))
        for dataset, value in scores.items()
    )  # fmt: skip
    train = make_job(name, "train", suite="s", args=args, environment=A100, metrics=train_metrics(
        trainable=10, total=100, train_loss=1.0, eval_loss=1.0, num_samples=9, train_time_s=9.0, reserved_gib=(3.0,),
    ))  # fmt: skip
    return ExperimentView(suite="s", name=name, cmd="sft", main=train, evals=evals)


SHOTS = SuiteView(
    name="s",
    experiments=(
        scored("x", 4, {"gsm8k_1shot": 0.9, "gsm8k": 0.1}),
        scored("y", 8, {"gsm8k_1shot": 0.2, "gsm8k": 0.7}),
    ),
)


def section(suite: SuiteView, **options: object) -> SuiteSection:
    return build_document(Collection(suites=(suite,), collected_at="now"), ReportOptions(**options)).suites[0]


@pytest.mark.parametrize(
    "options", [{"best": "gsm8k"}, {"columns": ("gsm8k",)}, {"layout": "pivot", "value": ("gsm8k",)}]
)
def test_a_dataset_is_not_another_one_whose_name_begins_alike(options: dict[str, object]) -> None:
    (table,) = section(SHOTS, **options).tables
    shown = [column.key for column in table.columns if column.key.startswith("gsm8k")]
    assert shown[0] == "gsm8k_acc"
    if "best" in options:
        assert [row.name for row in table.rows] == ["y", "x"]
    else:
        assert shown == ["gsm8k_acc"]


def test_pictures_rank_by_the_dataset_that_was_asked_for() -> None:
    rows = merge_repeats(map(facts_of, SHOTS.experiments))
    found = main_column(rows, table_columns(rows), "gsm8k")
    assert found is not None
    assert found.key == "gsm8k_acc"


def test_repeats_rank_once_all_of_them_have_the_figure() -> None:
    names = ("a", "b", "c")
    facts = [facts_of(scored(name, 4, {"arc": value})) for name, value in zip(names, (0.5, 0.9, 0.1), strict=True)]
    rows = [Row(name="one", members=(facts[0],)), Row(name="two", members=(facts[1], facts_of(scored("c", 4, {}))))]
    column = main_column(rows, (), None)
    assert [row.name for row in ranked(rows, column)] == ["one", "two"]


@pytest.mark.parametrize(
    ("block", "typed", "first"),
    [
        ({"headers": {"eval_loss": "loss"}}, {}, "experiment pig_latin_exact_match"),
        ({"layout": "pivot", "by": ("lora_rank",), "value": ("memory_peak_mib",)}, {"layout": "table"}, "experiment pig_latin_exact_match"),
        ({"layout": "pivot"}, {"best": "eval_loss"}, "experiment eval_loss"),
        ({"layout": "pivot"}, {"by": ("lora_rank",)}, "lora_rank train_samples_per_second"),
        ({"layout": "swift"}, {"columns": ("eval_loss",)}, "experiment eval_loss"),
        ({"by": ("lora_rank",), "value": ("eval_loss",)}, {"best": "train_loss"}, "experiment train_loss"),
        ({"by": ("lora_rank",)}, {"columns": ("train_loss",)}, "experiment train_loss"),
        ({"best": "eval_loss"}, {"by": ("lora_rank",), "value": ("train_loss",)}, "lora_rank train_loss"),
    ],
)  # fmt: skip
def test_what_is_typed_is_shown_whatever_form_the_suite_asks_for(
    block: dict[str, object], typed: dict[str, object], first: str
) -> None:
    (suite,) = cases.quickstart().suites
    suite = replace(suite, report=ReportOptions(**block))
    assert [column.key for column in section(suite, **typed).tables[0].columns][:2] == first.split()


@pytest.mark.parametrize("options", [{"best": "gsm8k"}, {"by": ("lora_rank",), "value": ("gsm8k",)}])
def test_a_suite_without_the_figure_says_so_and_is_shown_as_usual(options: dict[str, object]) -> None:
    (suite,) = cases.quickstart().suites
    found = section(suite, **options)
    assert len(found.tables[0].columns) > 2
    assert any("no figure 'gsm8k'" in warning for warning in found.warnings)


def test_pivot_takes_the_settings_of_every_command() -> None:
    programs = [make_job(name, "train", suite="s", cmd="command", environment=A100) for name in ("a", "b")]
    views = []
    for job in programs:
        assert job.request is not None
        command = CommandArgs(command=("run", job.experiment))
        job = replace(job, request=job.request.model_copy(update={"command": command}))  # noqa: PLW2901
        views.append(ExperimentView(suite="s", name=job.experiment, cmd="command", main=job))
    (table,) = section(SuiteView(name="s", experiments=tuple(views)), layout="pivot").tables
    assert "command" in [column.key for column in table.columns]


@pytest.mark.parametrize("key", ["requirements.gpus", "eval_args.nope", "eval_args.pig_latin.limit"])
def test_a_setting_that_is_none_is_refused(key: str) -> None:
    (suite,) = cases.quickstart().suites
    assert not is_setting(key, list(map(facts_of, suite.experiments)))
    with pytest.raises(ReportError, match="not a setting"):
        section(suite, layout="pivot", by=(key,))


@pytest.mark.parametrize("options", [{"best": "eval_loss"}, {"columns": ("eval_loss",)}])
def test_pivot_refuses_what_it_has_no_place_for(options: dict[str, object]) -> None:
    with pytest.raises(PlanError, match="the layout pivot"):
        refuse_unknown(cases.quickstart(), ReportOptions(layout="pivot", **options))


def test_pivot_marks_the_source_of_mean_memory() -> None:
    (suite,) = cases.repeats().suites
    (table,) = section(suite, layout="pivot").tables
    place = [column.key for column in table.columns].index("memory_peak_gib")
    assert table.cells[0][place].text == "1.85 ± 0.01 (host) (n=3)"
