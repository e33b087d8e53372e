"""Which jobs a name means: as it is, else as the suite's file has it; whose log is followed."""

from __future__ import annotations

from dataclasses import replace

import pytest

from hpcbench.cli.selection import choose_followed
from hpcbench.errors import PlanError
from hpcbench.schemas.collection import Collection, ExperimentView, JobView, SuiteView, choose_jobs
from hpcbench.schemas.states import JobState
from tests.support import report_parts as parts

EXPERIMENTS = ("full", "lora-lora_rank=8", "lora-lora_rank=32", "lora-lora_rank=8-dtype=bf16", "dora", "dora-lr=1e-4")


def job(experiment: str, name: str = "train", state: JobState = JobState.COMPLETED) -> JobView:
    return parts.make_job(experiment, name, suite="suite", cmd="sft" if name == "train" else "eval", state=state)


def repeat(number: int) -> JobView:
    made = job(f"ia3-r=4-repeat{number}")
    assert made.request is not None
    return replace(made, request=made.request.model_copy(update={"base_experiment": "ia3-r=4"}))


def named(*patterns: str) -> list[str]:
    mains = [*map(job, EXPERIMENTS), *map(repeat, range(2))]
    experiments = tuple(
        ExperimentView(
            suite="suite", name=main.experiment, cmd="sft", main=main, evals=(job(main.experiment, "eval-arc"),)
        )
        for main in mains
    )
    found = Collection(suites=(SuiteView(name="suite", experiments=experiments),), collected_at="now")
    return [f"{job.experiment}/{job.job}" for job in choose_jobs(found, patterns) if job.job == "train"]


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("lora", ["lora-lora_rank=8", "lora-lora_rank=32", "lora-lora_rank=8-dtype=bf16"]),
        ("suite/lora", ["lora-lora_rank=8", "lora-lora_rank=32", "lora-lora_rank=8-dtype=bf16"]),
        ("lora/train", ["lora-lora_rank=8", "lora-lora_rank=32", "lora-lora_rank=8-dtype=bf16"]),
        ("ia3", ["ia3-r=4-repeat0", "ia3-r=4-repeat1"]),
        ("ia3-r=4", ["ia3-r=4-repeat0", "ia3-r=4-repeat1"]),
        ("lora-lora_rank=8", ["lora-lora_rank=8"]),
        ("lor", []),
    ],
)
def test_a_name_of_the_suites_file_means_all_that_was_made_of_it(pattern: str, expected: list[str]) -> None:
    assert named(pattern) == [f"{name}/train" for name in expected]


def test_a_name_that_means_something_as_it_is_means_nothing_else() -> None:
    assert named("dora") == ["dora/train"]


def test_the_log_that_is_followed_is_that_of_the_job_that_runs() -> None:
    running = job("full", "eval-arc", JobState.RUNNING)
    assert choose_followed([job("full"), running, job("full", "eval-gsm8k")], "full") is running


def test_where_none_runs_it_is_the_main_jobs() -> None:
    assert choose_followed([job("full"), job("full", "eval-arc")], "full").job == "train"
    assert choose_followed([job("full", "eval-arc")], "full").job == "eval-arc"


@pytest.mark.parametrize(
    ("jobs", "message"),
    [
        (
            [job("full", "train", JobState.RUNNING), job("dora", "train", JobState.RUNNING)],
            "several jobs run; expected: one of suite/full/train, suite/dora/train",
        ),
        ([job("full"), job("dora")], "several jobs have logs; expected: one of suite/full/train, suite/dora/train"),
    ],
)
def test_which_of_several_is_for_the_person_to_say(jobs: list[JobView], message: str) -> None:
    with pytest.raises(PlanError) as caught:
        choose_followed(jobs, "*")
    assert caught.value.message == f"*: {message}"
