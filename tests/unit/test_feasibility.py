"""What can never run is refused in words before anything is queued; what is not known never is."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpcbench.feasibility import find_impossible, judge_resources
from hpcbench.profile import ClusterProfile
from hpcbench.request import Resources
from hpcbench.scheduler.slurm_facts import NodeGroup, parse_sinfo
from tests.unit.job_cases import experiment, suite

GROUPS = tuple(
    parse_sinfo(
        "cpu*|up|8:00:00|120|64|256000|(null)\ngpu|up|2-00:00:00|8|64|512000|gpu:a100:4\nold|up|infinite|1|8|1|gpu:2\n"
    )
)
PLAIN = ClusterProfile()


@pytest.mark.parametrize(
    ("resources", "profile", "expected"),
    [
        (Resources(gpu=4), PLAIN, None),
        (Resources(gpu=8, nodes=2, ddp=2), PLAIN, None),
        (Resources(gpu=8), PLAIN, ("gpu", "8 GPUs on one node are more than any node has", "at most (GPUs per node): cpu 0, gpu 4, old 2")),
        (Resources(gpu=1, gpu_type="h100"), PLAIN, ("gpu_type", "no node that such a job may run on has GPUs of type 'h100'", "gpu a100")),
        (Resources(gpu=1, gpu_type="a100", time_min=2881), PLAIN, ("gpu_type", "no node that such a job may run on has GPUs of type 'a100'", "gpu a100")),
        (Resources(gpu=1, partition="gpu", time_min=3000), PLAIN, ("time", "3000 minutes are more than any partition allows", "at most (minutes): gpu 2880")),
        (Resources(gpu=1, partition="gqu"), PLAIN, ("partition", "there is no partition 'gqu'", "cpu, gpu, old")),
        (Resources(gpu=0, partition="cpu,gpu", time_min=2000), PLAIN, None),
        (Resources(gpu=8), ClusterProfile(gpu_flag=None), None),
        (Resources(gpu=1, time_min=90), ClusterProfile(time_min=30, time_max_min=60), ("time", "90 minutes are more than the profile allows", "at most 60 minutes (time_max_min of the profile slurm)")),
        (Resources(gpu=1), ClusterProfile(partition="gpu", time_min=3000), ("time", "3000 minutes are more than any partition allows", "at most (minutes): gpu 2880")),
    ],
)  # fmt: skip
def test_one_request(resources: Resources, profile: ClusterProfile, expected: tuple[str, str, str] | None) -> None:
    assert list(judge_resources(resources, profile, GROUPS)) == ([] if expected is None else [expected])


def test_nothing_is_refused_when_the_cluster_did_not_answer() -> None:
    assert list(judge_resources(Resources(gpu=999, time_min=500_000), PLAIN, ())) == []


def test_a_thousand_experiments_of_one_shape_are_one_problem() -> None:
    tuners = suite(*(experiment(f"e{i}", requirements=Resources(gpu=16)) for i in range(1000)))
    [problem] = find_impossible([tuners], PLAIN, GROUPS)
    assert problem.render() == (
        "/suites/tuners.yaml: e0: requirements.gpu: 16 GPUs on one node are more than any node has"
        " (and 999 more experiments)\n  expected: at most (GPUs per node): cpu 0, gpu 4, old 2"
    )


def test_only_the_experiments_that_are_meant_are_judged() -> None:
    tuners = suite(experiment("big", requirements=Resources(gpu=16)), experiment("small"))
    assert find_impossible([tuners], PLAIN, GROUPS, only=["small"]) == []
    assert len(find_impossible([tuners], PLAIN, GROUPS, only=["b*"])) == 1


@given(gpus=st.integers(1, 16), has=st.integers(1, 16), time_min=st.integers(1, 10_000), limit=st.integers(1, 10_000))
def test_exactly_what_fits_passes(gpus: int, has: int, time_min: int, limit: int) -> None:
    group = NodeGroup(partition="gpu", time_max_min=limit, num_nodes=1, cpus=8, mem_gib=64, gpus={"a100": has})
    problems = list(judge_resources(Resources(gpu=gpus, time_min=time_min), PLAIN, [group]))
    assert (not problems) == (gpus <= has and time_min <= limit)
