"""Evals with `together` share an element: what goes into one, and what submission files say of it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from hpcbench.plan.arrays import describe_array, make_arrays, make_bundles, take_part
from hpcbench.plan.decide import Options, decide
from hpcbench.schemas.arguments import EvalArgs
from hpcbench.schemas.request import JobRequest
from hpcbench.schemas.submission import Element, Submission
from hpcbench.schemas.suite import Experiment
from hpcbench.submit.submit_plan import limit_jobs
from tests.support.job_cases import experiment, submission
from tests.unit.plan.test_plan import plan


def evals(name: str, *datasets: str, **changes: object) -> Experiment:
    args = {dataset: EvalArgs(together=True) for dataset in datasets}
    return experiment(name, eval_dataset=datasets, eval_args=args, **changes)


def names(bundles: list[tuple[JobRequest, ...]]) -> list[list[str]]:
    return [[request.job for request in bundle] for bundle in bundles]


def test_evals_of_an_experiment_are_one_element_of_the_array_behind_their_trainings() -> None:
    requests = plan(evals("a", "x", "y"), evals("b", "x", "y", "z"))
    [trains] = make_arrays(decide(requests, {}, Options(), cluster="slurm"), 1001)
    [shared] = trains.children
    assert {index: [job.job for job in bundle] for index, bundle in shared.requests.items()} == {
        0: ["eval-x", "eval-y"],
        1: ["eval-x", "eval-y", "eval-z"],
    }
    assert (trains.num_jobs, trains.num_elements) == (7, 4)
    half = take_part(trains, [1])
    assert [[job.experiment for job in bundle] for bundle in half.children[0].requests.values()] == [["b"] * 3]


def test_baselines_share_jobs_by_experiment() -> None:
    requests = plan(evals("a", "x", "y", cmd="eval"), evals("b", "x", "y", cmd="eval"))
    [array] = make_arrays(decide(requests, {}, Options(), cluster="slurm"), 1001)
    assert [[request.ref for request in bundle] for bundle in array.requests.values()] == [
        [("a", "eval-x"), ("a", "eval-y")],
        [("b", "eval-x"), ("b", "eval-y")],
    ]


def test_only_evals_that_load_the_same_model_in_the_same_way_share_a_job() -> None:
    args = {
        "x": EvalArgs(together=True),
        "apart": EvalArgs(),
        "last": EvalArgs(together=True, checkpoint="last"),
        "merged": EvalArgs(together=True, merge_lora=True),
        "y": EvalArgs(together=True, num_fewshot=3, batch_size=1),
    }
    [_, *requests] = plan(experiment("a", eval_dataset=tuple(args), eval_args=args))
    assert names(make_bundles(requests)) == [["eval-x", "eval-y"], ["eval-apart"], ["eval-last"], ["eval-merged"]]
    more_memory = requests[4].resources.model_copy(update={"mem_gb": 64.0})
    larger = requests[4].model_copy(update={"resources": more_memory})  # as `retry --adjust` asks for it
    assert names(make_bundles([requests[0], larger])) == [["eval-x"], ["eval-y"]]


def test_sharing_a_job_is_no_part_of_a_result() -> None:
    shared, apart = (plan(evals("a", "x")), plan(experiment("a", eval_dataset=("x",), eval_args={"x": EvalArgs()})))
    assert [request.fingerprint for request in shared] == [request.fingerprint for request in apart]


def test_a_limit_counts_the_jobs_of_the_scheduler_and_cuts_none_of_them() -> None:
    decisions = decide(plan(evals("a", "x", "y"), evals("b", "x", "y")), {}, Options(), cluster="slurm")
    assert [decision.name for decision in limit_jobs(decisions, 3)] == ["a train", "a eval-x", "a eval-y", "b train"]


def test_a_submission_names_all_jobs_of_an_element() -> None:
    [trains] = make_arrays(decide(plan(evals("a", "x", "y")), {}, Options(), cluster="slurm"), 1001)
    parent = describe_array(trains, "slurm", None)
    found = describe_array(trains.children[0], "slurm", parent)
    assert (found.num_jobs, len(found.elements)) == (2, 1)
    assert found.job_at(0, ("a", "eval-y")).fingerprint == trains.children[0].requests[0][1].fingerprint
    assert found.companions_of(0, ("a", "eval-y")) == (("a", "eval-x"),)
    assert Submission.model_validate(found.model_dump(mode="json")) == found


def test_an_element_of_one_job_is_written_as_earlier_versions_write_and_read_it() -> None:
    alone = submission(elements={0: Element(experiment="a", job="train", fingerprint="f")})
    written = alone.model_dump(mode="json")
    assert written["elements"]["0"] == {"experiment": "a", "job": "train", "fingerprint": "f"}
    assert Submission.model_validate(written) == alone


@pytest.mark.parametrize("max_array", [1, 1001])
def test_evals_added_later_run_in_a_job_without_those_that_are_done(max_array: int) -> None:
    decisions = decide(plan(evals("a", "x", "y", "z", cmd="eval")), {}, Options(), cluster="slurm")
    [array] = make_arrays([replace(d) for d in decisions if d.request.job == "eval-z"], max_array)
    assert names(list(array.requests.values())) == [["eval-z"]]
