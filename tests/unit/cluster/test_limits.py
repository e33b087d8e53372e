"""What can never run is refused in words before anything is queued; what is not known never is."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpcbench.cluster.limits import find_impossible, judge_resources
from hpcbench.errors import ConfigError, SchedulerError
from hpcbench.scheduler.slurm.client import SlurmClient
from hpcbench.scheduler.slurm.cluster_facts import NodeGroup, parse_sinfo
from hpcbench.schemas.cluster_profile import ClusterProfile
from hpcbench.schemas.request import Resources
from hpcbench.submit.destination import refuse_impossible
from tests.support.fake_commands import FakeCommands
from tests.support.job_cases import experiment, suite

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
        (Resources(gpu=0, mem_gb=500), PLAIN, None),
        (Resources(gpu=1, mem_gb=501), PLAIN, ("mem_gb", "501 GiB on one node are more than any node has that such a job may run on", "at most (GiB per node): gpu 500, old 0.0009766")),
        (Resources(gpu=0, partition="cpu"), ClusterProfile(mem_gb=300), ("mem_gb", "300 GiB on one node are more than any node has that such a job may run on (mem_gb of the profile slurm)", "at most (GiB per node): cpu 250")),
        (Resources(gpu=0, mem_gb=999), ClusterProfile(mem_flag=None), None),
        (Resources(gpu=0, mem_gb=300, partition="cpu"), ClusterProfile(extra_sbatch={"mem-bind": "local"}), ("mem_gb", "300 GiB on one node are more than any node has that such a job may run on", "at most (GiB per node): cpu 250")),
        (Resources(gpu=4), ClusterProfile(cpus_per_gpu=17), ("cpus_per_gpu", "68 CPUs on one node are more than any node has that such a job may run on (17 for each of 4 GPUs)", "at most (CPUs per node): gpu 64")),
        (Resources(gpu=4), ClusterProfile(cpus_per_gpu=16), None),
        (Resources(gpu=0, ddp=65), PLAIN, ("ddp", "65 CPUs on one node are more than any node has that such a job may run on", "at most (CPUs per node): cpu 64, gpu 64, old 8")),
        (Resources(gpu=32, ddp=8, nodes=8), PLAIN, None),
        (Resources(gpu=36, ddp=9, nodes=9), PLAIN, ("nodes", "9 nodes are more than any partition gives such a job", "at most (nodes that fit): gpu 8")),
        (Resources(gpu=0, nodes=9, ddp=9, partition="gpu"), PLAIN, ("nodes", "9 nodes are more than any partition gives such a job", "at most (nodes that fit): gpu 8")),
        (Resources(gpu=0, nodes=5, ddp=5, partition="cpu"), PLAIN, ("nodes", "5 nodes are more than any partition gives such a job", "at most (nodes that fit): cpu 4")),
        (Resources(gpu=0, nodes=120, ddp=120, partition="cpu"), ClusterProfile(qos="big"), None),
        (Resources(gpu=0, nodes=121, ddp=121, partition="cpu"), ClusterProfile(qos="big"), ("nodes", "121 nodes are more than any partition gives such a job", "at most (nodes that fit): cpu 120")),
        (Resources(gpu=1, partition="gpu", time_min=3000), ClusterProfile(qos="long"), None),
        (Resources(gpu=1, partition="gpu", time_min=3000), ClusterProfile(qos="long", time_min=30, time_max_min=60), ("time", "3000 minutes are more than the profile allows", "at most 60 minutes (time_max_min of the profile slurm)")),
        (Resources(gpu=1), ClusterProfile(partition="gpu", time_min=3000), ("time", "3000 minutes are more than any partition allows", "at most (minutes): gpu 2880")),
    ],
)  # fmt: skip
def test_one_request(resources: Resources, profile: ClusterProfile, expected: tuple[str, str, str] | None) -> None:
    partitions = {"cpu": {"MaxNodes": "4"}, "gpu": {"MaxNodes": "UNLIMITED"}}
    assert list(judge_resources(resources, profile, GROUPS, partitions)) == ([] if expected is None else [expected])


def test_all_that_is_wrong_with_a_request_is_said_at_once() -> None:
    wrong = judge_resources(Resources(gpu=0, mem_gb=999, ddp=900, nodes=9, partition="gpu"), PLAIN, GROUPS)
    assert [field for field, _, _ in wrong] == ["mem_gb", "ddp", "nodes"]


def test_one_node_has_to_have_all_that_a_job_asks_for() -> None:
    groups = tuple(parse_sinfo("a|up|1:00:00|1|64|1024|(null)\na|up|1:00:00|1|8|65536|(null)\n"))
    profile = ClusterProfile(time_min=10)
    assert list(judge_resources(Resources(gpu=0, mem_gb=64), profile, groups)) == []
    assert list(judge_resources(Resources(gpu=0, ddp=64), profile, groups)) == []
    [(field, _, expected)] = judge_resources(Resources(gpu=0, ddp=64, mem_gb=64), profile, groups)
    assert (field, expected) == ("ddp", "at most (CPUs per node): a 8")


def test_where_only_the_smallest_of_some_nodes_is_known_the_others_may_be_large_enough() -> None:
    groups = tuple(parse_sinfo("a|up|infinite|2|8+|1024+|(null)\n"))
    assert list(judge_resources(Resources(gpu=0, ddp=64, mem_gb=64), PLAIN, groups)) == []


def test_a_partition_whose_nodes_are_powered_down_refuses_no_shape() -> None:
    groups = tuple(parse_sinfo("cloud|up|1:00:00|0|0|0|(null)\nsmall|up|1:00:00|1|8|1024|(null)\n"))
    large = Resources(gpu=8, ddp=64, nodes=2, mem_gb=999, time_min=60, partition="cloud")
    assert list(judge_resources(large, PLAIN, groups)) == []
    assert list(judge_resources(large.model_copy(update={"partition": "cloud,small"}), PLAIN, groups)) == []
    assert list(judge_resources(large.model_copy(update={"partition": "small"}), PLAIN, groups))
    assert [field for field, _, _ in judge_resources(large.model_copy(update={"time_min": 61}), PLAIN, groups)] == [
        "time"
    ]


def test_where_scontrol_does_not_answer_sinfo_is_not_run() -> None:
    commands = FakeCommands({"scontrol": SchedulerError("scontrol: exit code 1: no message")})
    client = SlurmClient(run=commands)
    tuners = suite(experiment("e", requirements=Resources(gpu=16, time_min=90)))
    refuse_impossible([tuners], PLAIN, None, client)
    with pytest.raises(ConfigError, match="90 minutes are more than the profile allows"):
        refuse_impossible([tuners], ClusterProfile(time_min=30, time_max_min=60), None, client)
    assert commands.programs == ["scontrol"]


def test_nothing_is_refused_when_the_cluster_did_not_answer() -> None:
    assert list(judge_resources(Resources(gpu=999, time_min=500_000), PLAIN, ())) == []


def test_a_thousand_experiments_of_one_shape_are_one_problem() -> None:
    tuners = suite(*(experiment(f"e{i}", requirements=Resources(gpu=16)) for i in range(1000)))
    [problem] = find_impossible([tuners], PLAIN, GROUPS)
    assert problem.render() == (
        "/suites/tuners.yaml: e0: requirements.gpu: 16 GPUs on one node are more than any node has"
        " (and 999 more experiments)\n  expected: at most (GPUs per node): cpu 0, gpu 4, old 2\n"
        "  hint: ask for fewer, or for more nodes (nodes: 2 spreads them)"
    )


def test_only_the_experiments_that_are_meant_are_judged() -> None:
    tuners = suite(experiment("big", requirements=Resources(gpu=16)), experiment("small"))
    assert find_impossible([tuners], PLAIN, GROUPS, only=["small"]) == []
    assert len(find_impossible([tuners], PLAIN, GROUPS, only=["b*"])) == 1


@given(gpus=st.integers(1, 16), has=st.integers(1, 16), time_min=st.integers(1, 10_000), limit=st.integers(1, 10_000))
def test_exactly_what_fits_passes(gpus: int, has: int, time_min: int, limit: int) -> None:
    group = NodeGroup(partition="gpu", time_max_min=limit, num_nodes=1, cpus=64, mem_gib=64, gpus={"a100": has})
    problems = list(judge_resources(Resources(gpu=gpus, time_min=time_min), PLAIN, [group]))
    assert (not problems) == (gpus <= has and time_min <= limit)
