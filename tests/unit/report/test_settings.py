"""Settings as columns: which ones vary, which are shared, and that each row of a sweep can be told from the others."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import replace
from typing import Any

import pytest

from hpcbench.report import render
from hpcbench.report.facts import facts_of
from hpcbench.report.settings import number_setting, setting_column, shared_settings, varying_settings
from hpcbench.schemas.arguments import CommandArgs, EvalArgs
from hpcbench.schemas.collection import Collection, ExperimentView, SuiteView
from hpcbench.schemas.request import Resources
from tests.support import report_cases as cases
from tests.support import report_parts as parts

SWEPT = ["lora_rank", "lora_dropout_p", "learning_rate"]


def trained(name: str, *, base: str | None = None, **args: Any) -> ExperimentView:
    """Return an experiment that trains with these arguments."""
    job = parts.make_job(name, "train", suite="s", args=parts.QWEN | args)
    return ExperimentView(suite="s", name=name, base_experiment=base, cmd="sft", main=job)


def with_request(view: ExperimentView, **update: Any) -> ExperimentView:
    """Return the experiment with another request of its main job."""
    assert view.main is not None
    assert view.main.request is not None
    return replace(view, main=replace(view.main, request=view.main.request.model_copy(update=update)))


def keys(*views: ExperimentView) -> list[str]:
    return [column.key for column in varying_settings([facts_of(view) for view in views])]


def shared(*views: ExperimentView) -> dict[str, str]:
    return shared_settings([facts_of(view) for view in views])


def values(key: str, *views: ExperimentView) -> list[object]:
    return [setting_column(key).get(facts_of(view)) for view in views]


def test_arguments_that_differ_have_a_column_and_the_others_have_none() -> None:
    views = trained("a", batch_size=1, weight_decay=0.1), trained("b", batch_size=4, weight_decay=0.1)
    assert keys(*views) == ["batch_size"]
    assert values("batch_size", *views) == [1, 4]
    assert shared(*views)["weight_decay"] == "0.1"


def test_an_argument_without_an_effect_does_not_vary() -> None:
    lora, full = trained("lora", lora_rank=16), trained("full", sft_type="full")
    assert keys(lora, full) == []
    assert values("lora_rank", lora, full) == [16, None]
    assert shared(lora, full)["lora_rank"] == "16"


def test_learning_rates_are_those_that_were_used() -> None:
    lora, full = (trained(name, sft_type=name, learning_rate=None) for name in ("lora", "full"))
    assert values("learning_rate", lora, full) == [1e-4, 2e-5]
    assert keys(lora, full) == ["learning_rate"]


def test_steps_and_epochs_show_which_of_them_counted() -> None:
    views = trained("a", max_steps=100), trained("b")
    assert keys(*views) == ["num_train_epochs", "max_steps"]
    assert values("num_train_epochs", *views) == [None, 2.0]
    assert values("max_steps", *views) == [100, None]


def test_a_baselines_arguments_of_trainings_are_absent() -> None:
    evaluated = parts.make_job("base", "eval-x", suite="s", cmd="eval", args=parts.QWEN | {"learning_rate": 9.0})
    baseline = ExperimentView(suite="s", name="base", cmd="eval", evals=(evaluated,))
    assert keys(baseline, trained("a")) == []
    assert values("learning_rate", baseline) == [None]


def test_seeds_of_repeats_are_no_setting_and_seeds_of_a_matrix_are_one() -> None:
    repeated = [with_request(trained(f"a-{n}", base="a", seed=42 + n), repeat=n) for n in range(3)]
    assert keys(*repeated, trained("b")) == []
    assert keys(trained("a", seed=1), trained("b", seed=2)) == ["seed"]


def test_what_the_matrix_varies_comes_first() -> None:
    one, two = trained("a", batch_size=1, lora_rank=4), trained("b", batch_size=2, lora_rank=8)
    assert keys(one, two) == ["batch_size", "lora_rank"]
    two = with_request(two, source_of={"lora_rank": "matrix", "batch_size": "experiment"})
    assert keys(one, two) == ["lora_rank", "batch_size"]


def test_fields_of_peft_have_a_column_each() -> None:
    vera = [trained(f"r{rank}", sft_type="vera", peft_config={"r": rank, "d_initial": 0.1}) for rank in (64, 128)]
    assert "peft_config.r" in keys(*vera)
    assert "peft_config.d_initial" not in keys(*vera)
    assert values("peft_config.r", *vera, trained("lora")) == [64, 128, None]


def test_gpus_are_a_setting_and_time_limits_are_none() -> None:
    one = with_request(trained("a"), resources=Resources(gpu=1, ddp=1, time_min=60))
    two = with_request(trained("b"), resources=Resources(gpu=2, ddp=2, time_min=120))
    assert keys(one, two) == ["requirements.gpu"]
    split = with_request(trained("c"), resources=Resources(gpu=2, ddp=1))
    assert keys(one, two, split) == ["requirements.gpu", "requirements.ddp"]


def test_environment_variables_are_settings_but_for_secrets() -> None:
    one = with_request(trained("a"), env={"OMP_NUM_THREADS": "1", "HF_TOKEN": "x"})
    two = with_request(trained("b"), env={"OMP_NUM_THREADS": "8", "HF_TOKEN": "y"})
    assert keys(one, two) == ["env.OMP_NUM_THREADS"]
    assert values("env.OMP_NUM_THREADS", one, two) == ["1", "8"]


def evaluated(name: str, **shots: int) -> ExperimentView:
    jobs = []
    for dataset, number in shots.items():
        job = parts.make_job(name, f"eval-{dataset}", suite="s", cmd="eval", args=parts.QWEN)
        assert job.request is not None
        jobs.append(replace(job, request=job.request.model_copy(update={"eval_args": EvalArgs(num_fewshot=number)})))
    return replace(trained(name), evals=tuple(jobs))


def test_settings_of_evals_have_one_column_where_datasets_agree() -> None:
    assert keys(evaluated("a", x=0, y=0), evaluated("b", x=5, y=5)) == ["eval_args.num_fewshot"]
    assert keys(evaluated("a", x=0, y=0), evaluated("b", x=0, y=5)) == ["eval_args.per_dataset.y.num_fewshot"]
    assert keys(evaluated("a", x=0, y=5), evaluated("b", x=0, y=5)) == []


def test_whether_evals_share_a_job_is_no_setting() -> None:
    apart = evaluated("a", x=0, y=0)
    requests = [job.request for job in apart.evals if job.request is not None]
    shared = [request.model_copy(update={"eval_args": EvalArgs(num_fewshot=0, together=True)}) for request in requests]
    evals = tuple(replace(job, request=request) for job, request in zip(apart.evals, shared, strict=True))
    assert keys(apart, replace(evaluated("b", x=0, y=0), evals=evals)) == []


@pytest.mark.parametrize(
    ("value", "text"), [(1e-4, "1e-4"), (5e-5, "5e-5"), (1.5e-5, "1.5e-5"), (0.05, "0.05"), (32.0, "32"), (0.0, "0")]
)
def test_numbers_are_short(value: float, text: str) -> None:
    assert number_setting(value) == text


def test_every_row_of_a_sweep_can_be_told_from_the_others() -> None:
    collection = cases.sweep()
    rows = list(csv.DictReader(io.StringIO(render(collection, format="csv"))))
    assert len(rows) == 300
    assert len({tuple(row[key] for key in (*SWEPT, "repeat")) for row in rows}) == 300
    table = next(iter(render(collection, format="markdown").split("\n\n|")[1:])).splitlines()
    header = [cell.strip() for cell in table[0].split("|")]
    assert set(SWEPT) <= set(header)
    shown = [[cell.strip() for cell in line.strip("|").split("|")] for line in table[2:102]]
    places = [header.index(key) for key in SWEPT]
    assert len({tuple(cells[place] for place in places) for cells in shown}) == 100


def test_json_has_the_settings_that_vary_and_the_repeat() -> None:
    report = json.loads(render(cases.sweep(), format="json"))
    found = report["suites"][0]["experiments"][4]["values"]
    assert [found[key] for key in ("lora_rank", "learning_rate", "lora_dropout_p", "repeat", "seed")] == [
        *(4, 1e-5, 0.05, 1, 43),
    ]


def test_suites_that_differ_from_each_other_are_told_apart_in_csv() -> None:
    suites = tuple(
        SuiteView(name=name, experiments=(replace(trained("a", batch_size=size), suite=name),))
        for name, size in (("one", 1), ("two", 2))
    )
    rows = list(csv.DictReader(io.StringIO(render(Collection(suites=suites, collected_at="now"), format="csv"))))
    assert [row["batch_size"] for row in rows] == ["1", "2"]


def test_programs_are_shown_as_they_would_be_typed() -> None:
    views = []
    for word in ("a b", "c"):
        job = parts.make_job(word, "train", suite="s", cmd="command")
        view = ExperimentView(suite="s", name=word, cmd="command", main=job)
        views.append(with_request(view, command=CommandArgs(command=("sh", "-c", word))))
    assert keys(*views) == ["command"]
    assert values("command", *views) == ["sh -c 'a b'", "sh -c c"]
