"""A site that forbids arrays, keeps no accounts, wants an account named and refuses `--gpus`."""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from hpcbench.config.profile import read_profile
from hpcbench.plan.decide import Options
from hpcbench.scheduler.slurm.commands import run_command
from hpcbench.schemas.cluster_profile import ClusterProfile
from hpcbench.schemas.request import Resources
from hpcbench.schemas.states import JobState
from hpcbench.schemas.submission import read_submissions, write_submission
from hpcbench.status.gather import gather
from hpcbench.storage.paths import SuitePaths
from tests.support.places import ROOT
from tests.support.slurm_cluster.cluster import Cluster, start_cluster
from tests.support.slurm_suites import (
    command_experiment,
    command_suite,
    hpcbench,
    states,
    submit,
    view,
    wait_until_over,
    write_suite,
)

pytestmark = pytest.mark.slurm

NO_ARRAYS = read_profile(ROOT / "configs" / "clusters" / "no-arrays.yaml").model_copy(update={"account": "lab"})
LUA = """
function slurm_job_submit(job_desc, part_list, submit_uid)
  if job_desc.array_inx ~= nil then
    slurm.log_user("job arrays are not allowed on this cluster")
    return slurm.ERROR
  end
  if job_desc.account == nil then
    slurm.log_user("name an account with --account")
    return slurm.ERROR
  end
  if job_desc.tres_per_job ~= nil then
    slurm.log_user("ask for GPUs with --gres")
    return slurm.ERROR
  end
  return slurm.SUCCESS
end
function slurm_job_modify(job_desc, job_rec, part_list, modify_uid)
  return slurm.SUCCESS
end
return slurm.SUCCESS
"""
MIN_JOB_AGE_S = 10


@pytest.fixture(scope="module")
def second_cluster(slurm_cluster: Cluster) -> Iterator[Cluster]:
    """A cluster of this site's kind, beside the session's."""
    with tempfile.TemporaryDirectory(prefix="hpcbench-", dir="/tmp") as folder:
        named = ("ClusterName=other",)
        cluster = start_cluster(Path(folder), accounting=False, min_job_age=MIN_JOB_AGE_S, lua=LUA, extra_lines=named)
        yield cluster
        cluster.stop()


@pytest.fixture
def strict_cluster(second_cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> Cluster:
    """Let the clients of a test talk to that cluster."""
    for name, value in second_cluster.environment.items():
        monkeypatch.setenv(name, value)
    return second_cluster


def test_a_site_without_arrays_gets_single_jobs_with_afterok(strict_cluster: Cluster, tmp_path: Path) -> None:
    suite = command_suite(
        [
            command_experiment("good", ("true",), evals=["score", "other"]),
            command_experiment("bad", ("false",), evals=["score"]),
            command_experiment("slow", ("sleep", "3"), evals=["score"]),
        ]
    )
    refused = submit(suite, tmp_path / "arrays", profile=ClusterProfile(gpu_flag=None))
    assert refused.num_jobs == 0
    assert "job arrays are not allowed" in refused.refused[0]

    outcome = submit(suite, tmp_path / "single", profile=NO_ARRAYS)
    assert (outcome.num_jobs, outcome.refused) == (7, [])
    assert len(outcome.submitted) == 7
    scripts = [SuitePaths(tmp_path / "single", "commands").script(s.key).read_text() for s in outcome.submitted]
    assert not any("--array" in text for text in scripts)
    assert sum("--dependency=afterok:" in text for text in scripts) == 4
    collection = wait_until_over(tmp_path / "single")
    assert states(collection, "train") == {"good": "completed", "bad": "failed", "slow": "completed"}
    assert states(collection, "eval-score") == {"good": "completed", "bad": "blocked", "slow": "completed"}
    assert states(collection, "eval-other") == {"good": "completed"}
    assert submit(suite, tmp_path / "single", profile=NO_ARRAYS).num_jobs == 0

    checks = json.loads(hpcbench("doctor", "--cluster", "no-arrays", "--no-job", "--json", check=False).stdout)[
        "checks"
    ]
    accounting = next(check for check in checks if check["name"] == "accounting")
    assert (accounting["level"], accounting["message"]) == ("warning", "accounting is off")


@pytest.mark.parametrize(
    ("changes", "words"),
    [({"account": None}, "name an account with --account"), ({"gpu_flag": "gpus"}, "ask for GPUs with --gres")],
)
def test_what_the_site_refuses_is_told_in_its_words_and_stays_planned(
    strict_cluster: Cluster, tmp_path: Path, changes: dict[str, object], words: str
) -> None:
    one_gpu = Resources(gpu=1, cpus=1, mem_gb=0.1, time_min=10)
    suite = command_suite([command_experiment("a", ("sh", "-c", "test -n $CUDA_VISIBLE_DEVICES"), resources=one_gpu)])
    refused = submit(suite, tmp_path, profile=NO_ARRAYS.model_copy(update=changes))
    assert (refused.num_jobs, refused.limit, len(refused.refused)) == (0, "", 1)
    assert words in refused.refused[0]
    assert states(gather(tmp_path), "train") == {"a": "planned"}
    assert submit(suite, tmp_path, profile=NO_ARRAYS).num_jobs == 1
    assert states(wait_until_over(tmp_path), "train") == {"a": "completed"}


def test_without_accounting_records_and_start_marks_tell_what_the_queue_forgot(
    strict_cluster: Cluster, tmp_path: Path
) -> None:
    ran, never = (command_suite([command_experiment("a", ("true",), suite=name)]) for name in ("ran", "never"))
    [first] = submit(ran, tmp_path, profile=NO_ARRAYS).submitted
    held = NO_ARRAYS.model_copy(update={"extra_sbatch": {"hold": True}})
    [second] = submit(never, tmp_path, profile=held).submitted
    run_command(["scancel", str(second.scheduler_id)])
    wait_until_over(tmp_path)
    time.sleep(MIN_JOB_AGE_S)
    deadline = time.monotonic() + 60
    while run_command(["squeue", "--me", "--states=all", "--noheader"]) and time.monotonic() < deadline:
        time.sleep(1)

    # As if the submit had been killed right after sbatch: Slurm knows nothing of the job any more.
    write_submission(SuitePaths(tmp_path, "ran"), first.model_copy(update={"state": "intent", "scheduler_id": None}))
    again = submit(ran, tmp_path, profile=NO_ARRAYS)
    assert ([s.scheduler_id for s in again.plan.adopted], again.num_jobs) == ([first.scheduler_id], 0)

    # Cancelled by hand before it started: nothing is concluded at once, and later that it is lost.
    assert states(gather(tmp_path, ["never"]), "train") == {"a": "unknown"}
    assert submit(never, tmp_path, profile=NO_ARRAYS).num_jobs == 0
    [known] = read_submissions(SuitePaths(tmp_path, "never"))
    write_submission(
        SuitePaths(tmp_path, "never"), known.model_copy(update={"submitted_at": "2026-01-01T00:00:00.000000Z"})
    )
    told = hpcbench("why", "never/a", "--save-dir", str(tmp_path)).stdout
    assert "never/a/train: lost" in told
    assert "left the queue, accounting is off, and there is no record" in told
    assert submit(never, tmp_path, profile=NO_ARRAYS).num_jobs == 0
    assert submit(never, tmp_path, options=Options(retry=frozenset({JobState.LOST})), profile=NO_ARRAYS).num_jobs == 1
    assert view(wait_until_over(tmp_path), "a", "train").state is JobState.COMPLETED


def test_two_clusters_with_one_save_dir_leave_each_others_jobs_alone(
    slurm_cluster: Cluster, second_cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    suite_file = write_suite(
        tmp_path / "shared.yaml",
        {
            "cmd": "command",
            "device": "cpu",
            "requirements": {"gpu": 0, "mem_gb": 0.1, "time": "10m"},
            "args": {"command": ["sleep", "600"]},
            "experiment": [{"name": "a"}],
        },
    )
    place = ("--save-dir", str(tmp_path / "logs"))
    assert "1 job submitted" in hpcbench("submit", str(suite_file), *place).stdout
    [there] = read_submissions(SuitePaths(tmp_path / "logs", "shared"))
    assert there.cluster_name == "testbed"
    # Long ago, so that the silence of a cluster that should know the job would mean that it is lost.
    long_ago = {"submitted_at": "2026-01-01T00:00:00.000000Z", "created_at": "2026-01-01T00:00:00.000000Z"}
    write_submission(SuitePaths(tmp_path / "logs", "shared"), there.model_copy(update=long_ago))
    with monkeypatch.context() as patch:
        patch.setenv("SLURM_CONF", second_cluster.environment["SLURM_CONF"])
        [shown] = json.loads(hpcbench("status", "--json", *place).stdout)["jobs"]
        assert (shown["state"], "submitted to the cluster testbed" in shown["reason"]) == ("unknown", True)
        again = ("submit", str(suite_file), "--retry", "lost,failed,cancelled", *place)
        assert "0 jobs submitted" in hpcbench(*again).stdout
        refused = hpcbench("cancel", "--all", *place, check=False)
        assert (refused.returncode, "another cluster (testbed)" in refused.stderr) == (1, True)
        # The same after a submit that was killed between sbatch and its answer.
        intent = there.model_copy(update={**long_ago, "state": "intent", "scheduler_id": None})
        write_submission(SuitePaths(tmp_path / "logs", "shared"), intent)
        assert "0 jobs submitted" in hpcbench(*again).stdout
    assert f"adopted {there.scheduler_id}" in hpcbench("submit", str(suite_file), *place).stdout
    assert "1 job cancelled" in hpcbench("cancel", "--all", *place).stdout
