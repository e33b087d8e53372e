"""What can never run: refused before sbatch where Slurm can tell, else told by status and why, on the real test Slurm."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from hpcbench.cluster.doctor import run_checks
from hpcbench.cluster.init_profile import gather_facts, render_profile
from hpcbench.config.loading import load_suites
from hpcbench.config.profile import read_profile
from hpcbench.errors import ConfigError
from hpcbench.scheduler.slurm.client import SlurmClient
from hpcbench.scheduler.slurm.commands import run_command
from hpcbench.schemas.cluster_profile import ClusterProfile
from hpcbench.schemas.request import Resources
from hpcbench.schemas.suite import Suite
from hpcbench.status.gather import gather
from hpcbench.submit.destination import refuse_impossible
from tests.support.slurm_cluster.cluster import Cluster
from tests.support.slurm_suites import command_experiment, command_suite, hpcbench, submit, wait_until, write_suite

pytestmark = pytest.mark.slurm

TWO_CPUS = Resources(gpu=0, cpus=2, mem_gb=0.1, time_min=10)
ADD = (
    ["add", "account", "lab"],
    ["add", "account", "bound"],
    ["add", "user", "root", "account=lab"],
    ["add", "user", "root", "account=bound", "partition=low"],
    ["add", "qos", "tiny"],
    ["add", "qos", "long"],
    ["modify", "qos", "tiny", "set", "MaxTRESPerJob=cpu=1"],
    ["modify", "user", "root", "where", "account=lab", "set", "qos+=tiny"],
)


@pytest.fixture(scope="module", autouse=True)
def _enforced(slurm_cluster: Cluster) -> Iterator[None]:
    """Accounts `lab` and, in one partition, `bound`; a QOS `tiny` of one CPU a job, and one that is not ours."""
    for command in ADD:
        run_command(["sacctmgr", "--immediate", *command], check=False)
    with slurm_cluster.changed("AccountingStorageEnforce=limits,qos"):
        yield


def write_profiles(folder: Path) -> None:
    for name, text in {
        "stranger": "account: nobody\n",
        "elsewhere": "account: bound\npartition: gpu\n",
        "wrong-qos": "account: lab\nqos: long\n",
        "fine": "account: lab\nqos: tiny\npartition: gpu\nmem_gb: 2\n",
        "greedy": "account: lab\nmem_gb: 9\ncpus_per_gpu: 16\n",
    }.items():
        (folder / f"{name}.yaml").write_text(text)


def test_what_sbatch_would_refuse_or_keep_for_ever_is_refused_first(tmp_path: Path) -> None:
    write_profiles(tmp_path)
    requests = {
        "heavy": {"gpu": 0, "mem_gb": 9, "time": "10m"},
        "broad": {"gpu": 1, "cpus_per_gpu": 9, "time": "10m"},
        "wide": {"gpu": 3, "ddp": 3, "nodes": 3, "cpus_per_gpu": 1, "time": "10m"},
        "small": {"gpu": 1, "cpus_per_gpu": 1, "mem_gb": 0.1, "time": "10m"},
    }
    value = {
        "cmd": "command",
        "args": {"command": ["true"]},
        "experiment": [{"name": name, "requirements": request} for name, request in requests.items()],
    }
    suite_file = write_suite(tmp_path / "never.yaml", value)

    def refuse(verb: str, profile: str, *more: str) -> str:
        place = ("--save-dir", str(tmp_path / "logs"), "--cluster", str(tmp_path / f"{profile}.yaml"))
        done = hpcbench(verb, str(suite_file), *place, *more, check=False)
        assert done.returncode == 2, done.stdout + done.stderr
        return done.stderr

    told = refuse("submit", "stranger")
    for words in (
        "profile stranger: account: you may not charge account 'nobody'\n  expected: ",
        "heavy: requirements.mem_gb: 9 GiB on one node are more than any node has",
        "broad: requirements.cpus_per_gpu: 9 CPUs on one node are more than any node has",
        "wide: requirements.nodes: 3 nodes are more than any partition gives such a job",
        "4 problems found; nothing was submitted",
    ):
        assert words in told
    assert "small" not in told
    assert "'bound' may not be charged in gpu\n  expected: in low\n" in refuse("plan", "elsewhere", "--only", "small")
    assert not (tmp_path / "logs").exists()
    suites = load_suites([suite_file])
    with pytest.raises(ConfigError, match="you may not use QOS 'long' with account lab"):
        refuse_impossible(suites, read_profile(tmp_path / "wrong-qos.yaml"), ["small"], SlurmClient())
    refuse_impossible(suites, read_profile(tmp_path / "fine.yaml"), ["small"], SlurmClient())


def test_doctor_and_init_know_the_accounts(tmp_path: Path) -> None:
    write_profiles(tmp_path)

    def look(name: str) -> dict[str, tuple[str, str]]:
        profile = read_profile(tmp_path / f"{name}.yaml")
        checks = run_checks(profile, tmp_path / "logs", run_job=False, timeout_s=1)
        return {check.name: (check.level, check.message) for check in checks}

    fine = look("fine")
    assert fine["account"][0] == fine["qos"][0] == "ok"
    assert fine["account"][1].startswith("lab; yours: ")
    assert fine["memory"] == ("ok", "2 GiB; nodes have up to 7.812 GiB")
    assert fine["nodes"] == ("ok", "gpu 2")
    assert look("stranger")["profile account"][0] == "error"
    assert look("wrong-qos")["profile qos"][0] == "error"
    greedy = look("greedy")
    assert greedy["profile mem_gb"][0] == greedy["profile cpus_per_gpu"][0] == "error"
    held = ClusterProfile(gpu_flag=None, extra_sbatch={"hold": True})
    [job] = [c for c in run_checks(held, tmp_path / "logs", run_job=True, timeout_s=2) if c.name == "job"]
    assert job.level == "error"
    assert job.message.startswith("it never starts by itself: is held (JobHeldUser); ")
    proposed = yaml.safe_load(render_profile(gather_facts()))
    assert (proposed["partition"], proposed["account"]) == ("gpu", "root")


def one_job(suite: str, resources: Resources) -> Suite:
    return command_suite([command_experiment("job", ("true",), suite=suite, resources=resources)])


def test_jobs_that_never_start_are_told_with_the_next_command(slurm_cluster: Cluster, tmp_path: Path) -> None:
    tiny = Resources(gpu=0, cpus=1, mem_gb=0.1, time_min=10)
    long = tiny.model_copy(update={"partition": "grace"})
    down = tiny.model_copy(update={"partition": "low"})
    lab = ClusterProfile(account="lab")
    place = ("--save-dir", str(tmp_path))
    run_command(["scontrol", "update", "PartitionName=low", "State=DOWN"])
    run_command(["scontrol", "update", "PartitionName=grace", "MaxTime=1"])
    try:
        submit(one_job("held", tiny), tmp_path, profile=lab.model_copy(update={"extra_sbatch": {"hold": True}}))
        submit(
            one_job("later", tiny), tmp_path, profile=lab.model_copy(update={"extra_sbatch": {"begin": "now+1hour"}})
        )
        submit(one_job("long", long), tmp_path, profile=lab)
        submit(one_job("down", down), tmp_path, profile=lab)
        submit(one_job("limited", TWO_CPUS), tmp_path, profile=lab.model_copy(update={"qos": "tiny"}))
        words = {
            "held": "is held (JobHeldUser)",
            "long": "asks for more time than the partition allows, so it can never start (PartitionTimeLimit)",
            "down": "its partition is down (PartitionDown)",
            "limited": "asks for more CPUs than your QOS allows for one job, so it can never start (QOSMaxCpuPerJobLimit)",
        }

        def reasons() -> dict[str, str]:
            return {job.suite: job.reason for job in gather(tmp_path).jobs if job.suite != "later"}

        wait_until(lambda: reasons() == words, what="Slurm's reasons")
        rows = json.loads(hpcbench("status", "--json", *place).stdout)["jobs"]
        assert {row["suite"]: row["reason"] for row in rows}.items() >= words.items()
        told = hpcbench("why", *place).stdout
        for suite, reason in words.items():
            assert f"{suite}/job/train: pending (waiting in the queue)\n" in told
            assert f"  cause: {reason}\n" in told
            assert (f"  next: hpcbench cancel {suite}/job/train --save-dir {tmp_path}\n" in told) == (suite != "held")
        assert "later/job/train" not in told
        [release] = re.findall(r"  next: (scontrol release .+)\n", told)
        run_command(shlex.split(release))
        wait_until(lambda: "held" not in reasons() or reasons()["held"] == "", what="the held job goes on")
    finally:
        run_command(["scontrol", "update", "PartitionName=low", "State=UP"])
        run_command(["scontrol", "update", "PartitionName=grace", "MaxTime=08:00:00"])
        hpcbench("cancel", "--all", *place)
