"""What a retry would ask for instead: more memory, more time, another node."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from hpcbench.errors import PlanError
from hpcbench.schemas.cluster_profile import ClusterProfile
from hpcbench.schemas.collection import JobView
from hpcbench.schemas.record import Attempt, Cause, SampledMemory
from hpcbench.schemas.request import Resources
from hpcbench.schemas.states import JobState
from hpcbench.schemas.suite_folder import PlannedSuite, read_plan
from hpcbench.storage.json_files import write_json
from hpcbench.storage.paths import SuitePaths
from hpcbench.submit.retry import Remedy, check_remedies, find_remedies, find_remedy, load_submitted_suite
from tests.support.job_cases import experiment, record, suite, view
from tests.support.typed_commands import run_here
from tests.unit.plan.test_plan import plan

PROFILE = ClusterProfile(time_min=240)
ASKED = Resources(gpu=1, mem_gb=16, time_min=60)


def failed(state: JobState, *, had: Resources = ASKED, peak_gib: float | None = None, **changes: Any) -> JobView:
    request = plan(experiment("a", requirements=had))[0]
    attempt = Attempt(
        number=1,
        state=state,
        started_at="2026-11-21T00:00:00.000Z",
        finished_at="2026-11-21T00:01:00.000Z",
        duration_s=60,
        host="host",
        sampled=SampledMemory(host_rss_peak_gib=peak_gib),
    )
    return view(request, state, **{"record": record(state, attempts=(attempt,)), **changes})


def remedy(job: JobView, planned: Resources = ASKED, profile: ClusterProfile = PROFILE) -> Remedy:
    found = find_remedy(job, planned, profile)
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("asked", "default", "peak_gib", "wanted", "change"),
    [
        (16, None, None, 24, "mem_gb 16 -> 24"),
        (16, None, 20.1, 31, "mem_gb 16 -> 31"),
        (0.5, None, None, 0.8, "mem_gb 0.5 -> 0.8"),
        (None, 32, None, 48, "mem_gb 32 -> 48"),
        (None, None, 10, 15, "mem_gb the cluster's default (its peak was 10.0) -> 15"),
    ],
)
def test_host_out_of_memory_asks_for_half_as_much_again(
    asked: float | None, default: float | None, peak_gib: float | None, wanted: float, change: str
) -> None:
    had = Resources(mem_gb=asked)
    found = remedy(failed(JobState.HOST_OUT_OF_MEMORY, had=had, peak_gib=peak_gib), had, ClusterProfile(mem_gb=default))
    assert found.resources == had.model_copy(update={"mem_gb": wanted})
    assert found.change == change


def test_memory_that_nobody_knows_gives_no_advice() -> None:
    had = Resources()
    assert find_remedy(failed(JobState.HOST_OUT_OF_MEMORY, had=had), had, PROFILE) is None


def test_a_suite_that_asks_for_more_by_now_needs_no_change() -> None:
    assert find_remedy(failed(JobState.HOST_OUT_OF_MEMORY), Resources(mem_gb=24), PROFILE) is None


def test_a_timeout_asks_for_what_the_rest_needs() -> None:
    found = remedy(failed(JobState.TIMEOUT, progress={"eta_s": 7200.0}))
    assert found.resources.time_min == 160
    assert found.change == "time 60 min -> 160 min"


def test_a_timeout_whose_rest_fits_keeps_its_time() -> None:
    assert find_remedy(failed(JobState.TIMEOUT, progress={"eta_s": 600.0}), ASKED, PROFILE) is None


def test_a_timeout_of_unknown_rest_doubles_its_time_up_to_the_limit() -> None:
    assert remedy(failed(JobState.TIMEOUT)).resources.time_min == 120
    limited = ClusterProfile(time_min=60, time_max_min=90)
    assert remedy(failed(JobState.TIMEOUT), profile=limited).resources.time_min == 90


def test_a_failed_node_is_left_out() -> None:
    found = remedy(failed(JobState.NODE_FAILED, node="node7"), Resources(exclude="node1"))
    assert found.resources.exclude == "node1,node7"
    assert found.change == "exclude node7"
    assert find_remedy(failed(JobState.NODE_FAILED), ASKED, PROFILE) is None


def test_a_broken_gpu_leaves_its_node_out_and_other_failures_do_not() -> None:
    broken = record(JobState.FAILED, cause=Cause(type="bad_node", message="the node's GPU is broken"))
    assert remedy(failed(JobState.FAILED, record=broken, node="node7")).resources.exclude == "node7"
    assert find_remedy(failed(JobState.FAILED, node="node7"), ASKED, PROFILE) is None


def test_a_second_failure_keeps_what_the_first_retry_changed() -> None:
    had = ASKED.model_copy(update={"mem_gb": 24.0, "exclude": "node7"})
    found = remedy(failed(JobState.TIMEOUT, had=had))
    assert (found.resources.mem_gb, found.resources.time_min, found.resources.exclude) == (24, 120, "node7")
    assert remedy(failed(JobState.PREEMPTED, had=had)).resources == had
    # The same where the suite leaves it to the profile, or leaves out a node of its own.
    by_profile = remedy(failed(JobState.TIMEOUT, had=Resources(mem_gb=48)), Resources(), ClusterProfile(mem_gb=32))
    assert by_profile.resources.mem_gb == 48
    more = Resources(exclude="node1,node7")
    assert remedy(failed(JobState.TIMEOUT, had=more), Resources(exclude="node1")).resources.exclude == "node1,node7"


def test_each_job_of_a_suite_gets_its_own_remedy() -> None:
    jobs = [
        view(request, JobState.HOST_OUT_OF_MEMORY)
        for request in plan(experiment("a", requirements=ASKED, eval_requirements=Resources(mem_gb=8)))
    ]
    found = find_remedies(
        jobs, suite(experiment("a", requirements=ASKED, eval_requirements=Resources(mem_gb=8))), PROFILE
    )
    assert {place: r.resources.mem_gb for place, r in found.items()} == {("a", "train"): 24, ("a", "eval-gsm8k"): 12}


def test_a_change_that_the_cluster_cannot_give_is_refused() -> None:
    impossible = Remedy(resources=Resources(gpu=0, time_min=500), change="time 250 min -> 500 min")
    with pytest.raises(PlanError, match="time 250 min -> 500 min is not possible here: 500 minutes are more"):
        check_remedies({("a", "train"): impossible}, ClusterProfile(time_max_min=300), ())


def test_the_folder_in_which_set_was_typed_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "demo.yaml"
    file.write_text(
        "{cmd: command, device: cpu, requirements: {gpu: 0}, args: {command: ['true']}, experiment: [{name: a}]}"
    )
    monkeypatch.chdir(tmp_path)
    words = ("--cluster", "local", "--save-dir", "logs", "--set", "args.seed=7")
    assert run_here("submit", str(file), *words).code == 0
    planned = read_plan(SuitePaths(tmp_path / "logs", "demo"))
    assert planned is not None
    assert (planned.overrides, planned.typed_in) == (("args.seed=7",), str(tmp_path))


def test_a_retry_reads_paths_of_set_from_the_folder_in_which_it_was_typed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("typed", "elsewhere"):
        (tmp_path / name).mkdir()
    (tmp_path / "typed" / "rows.jsonl").write_text('{"query": "a", "response": "b"}\n')
    file = tmp_path / "demo.yaml"
    file.write_text(
        "{cmd: sft, device: cpu, args: {model_type: qwen2.5-1.5b, dataset: alpaca-en}, experiment: [{name: a}]}"
    )
    planned = PlannedSuite(
        suite="demo", suite_file=str(file), overrides=("args.dataset=rows.jsonl",), typed_in=str(tmp_path / "typed")
    )
    write_json(SuitePaths(tmp_path / "logs", "demo").plan, planned.model_dump(mode="json"))
    monkeypatch.chdir(tmp_path / "elsewhere")
    args = load_submitted_suite(tmp_path / "logs", "demo")[0].experiments[0].args
    assert args is not None
    assert args.dataset == (str(tmp_path / "typed" / "rows.jsonl"),)
