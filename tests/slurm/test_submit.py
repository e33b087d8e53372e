"""Submitting to a real Slurm: few calls, nothing twice, nothing lost, evals exactly where their train job completed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from datetime import datetime
from pathlib import Path

import pytest

from hpcbench.plan.decide import Options
from hpcbench.scheduler.slurm.commands import run_command
from hpcbench.scheduler.slurm.scheduler import SlurmScheduler
from hpcbench.schemas.cluster_profile import ClusterProfile
from hpcbench.schemas.states import JobState
from hpcbench.schemas.submission import read_submissions, write_submission
from hpcbench.status.gather import gather
from hpcbench.storage.json_files import read_json
from hpcbench.storage.paths import SuitePaths
from tests.support.slurm_cluster.cluster import Cluster
from tests.support.slurm_suites import (
    command_experiment,
    command_suite,
    count_rpcs,
    hpcbench,
    states,
    submit,
    view,
    wait_until,
    wait_until_over,
    write_suite,
)

pytestmark = pytest.mark.slurm

KILL_HPCBENCH = "kill -9 $(cut -d' ' -f4 /proc/$PPID/stat)"


def test_a_failed_train_job_blocks_its_eval_and_touches_no_other(slurm_cluster: Cluster, tmp_path: Path) -> None:
    suite = command_suite(
        [
            command_experiment("good", ("true",), evals=["score"]),
            command_experiment("exits", ("sh", "-c", "echo last words; exit 3"), evals=["score"]),
            command_experiment("killed", ("sh", "-c", "kill -9 $$"), evals=["score"]),
            command_experiment("missing", ("no-such-program",), evals=["score"]),
        ]
    )
    submit(suite, tmp_path)
    collection = wait_until_over(tmp_path)

    assert states(collection, "train") == {
        "good": "completed",
        "exits": "failed",
        "killed": "failed",
        "missing": "failed",
    }
    assert states(collection, "eval-score") == {
        "good": "completed",
        "exits": "blocked",
        "killed": "blocked",
        "missing": "blocked",
    }
    exits = view(collection, "exits", "train")
    assert exits.reason == "exit code 3"
    assert exits.record is not None
    assert exits.record.cause is not None
    assert exits.record.cause.lines == ("last words",)
    assert view(collection, "killed", "train").reason == "killed by SIGKILL"
    assert (
        view(collection, "missing", "train").reason == "cannot be started: no-such-program: No such file or directory"
    )


def test_running_submit_again_submits_nothing_that_is_alive_or_done(slurm_cluster: Cluster, tmp_path: Path) -> None:
    suite = command_suite(
        [command_experiment("a", ("sleep", "2"), evals=["score"]), command_experiment("b", ("true",))]
    )
    assert submit(suite, tmp_path).num_jobs == 3
    assert submit(suite, tmp_path).num_jobs == 0
    collection = wait_until_over(tmp_path)
    assert {job.state for job in collection.jobs} == {JobState.COMPLETED}
    assert submit(suite, tmp_path).num_jobs == 0
    attempts = sorted(path.name for path in tmp_path.glob("commands/*/*/attempt-*"))
    assert attempts == ["attempt-1"] * 3


def test_thirty_experiments_lose_exactly_the_eval_of_the_one_that_failed(
    slurm_cluster: Cluster, tmp_path: Path
) -> None:
    # MinJobAge is 10 s here: quick parents are purged while slow ones still run, and Slurm then judges all but the first
    # ten waiting evals by the whole array.
    commands = [("sleep", "28") if i < 11 else ("false",) if i == 20 else ("true",) for i in range(30)]
    suite = command_suite([command_experiment(f"e{i:02}", commands[i], evals=["score"]) for i in range(30)])
    submit(suite, tmp_path)
    collection = wait_until_over(tmp_path)

    evals = states(collection, "eval-score")
    assert [name for name, state in evals.items() if state != "completed"] == ["e20"]
    assert evals["e20"] == "blocked"


def test_a_submit_killed_after_sbatch_returned_is_adopted(slurm_cluster: Cluster, tmp_path: Path) -> None:
    suite_file = write_suite(
        tmp_path / "killed.yaml",
        {
            "cmd": "command",
            "device": "cpu",
            "requirements": {"gpu": 0, "mem_gb": 0.1, "time": "10m"},
            "args": {"command": ["sleep", "3"]},
            "experiment": [{"name": f"e{i}"} for i in range(3)],
        },
    )
    save_dir = tmp_path / "logs"
    # A wrapper that kills hpcbench, its parent's parent, as soon as the real sbatch has returned.
    shims = tmp_path / "bin"
    shims.mkdir()
    real = subprocess.run(["sh", "-c", "command -v sbatch"], capture_output=True, text=True, check=True).stdout.strip()
    shim = shims / "sbatch"
    shim.write_text(f'#!/bin/sh\n"{real}" "$@" > "{tmp_path}/sbatch.out"\n{KILL_HPCBENCH}\n')
    shim.chmod(0o755)
    command = [sys.executable, "-m", "hpcbench", "submit", str(suite_file), "--save-dir", str(save_dir)]
    environment = {**os.environ, "PATH": f"{shims}:{os.environ['PATH']}"}
    killed = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert killed.returncode == -signal.SIGKILL
    job_id = (tmp_path / "sbatch.out").read_text().strip()
    [intent] = read_submissions(SuitePaths(save_dir, "killed"))
    assert intent.state == "intent"
    assert intent.scheduler_id is None

    again = hpcbench("submit", str(suite_file), "--save-dir", str(save_dir))
    assert f"adopted {job_id}" in again.stdout
    assert "0 jobs submitted" in again.stdout
    collection = wait_until_over(save_dir)
    assert states(collection, "train") == {"e0": "completed", "e1": "completed", "e2": "completed"}
    starts = [file.read_text().splitlines() for file in save_dir.glob("killed/submissions/*.started/*")]
    assert [len(lines) for lines in starts] == [1, 1, 1]


def test_a_submit_killed_before_sbatch_leaves_nothing_behind(slurm_cluster: Cluster, tmp_path: Path) -> None:
    shims = tmp_path / "bin"
    shims.mkdir()
    (shims / "sbatch").write_text(f"#!/bin/sh\n{KILL_HPCBENCH}\n")
    (shims / "sbatch").chmod(0o755)
    suite_file = write_suite(
        tmp_path / "early.yaml",
        {"cmd": "command", "device": "cpu", "args": {"command": ["true"]}, "experiment": [{"name": "one"}]},
    )
    save_dir = tmp_path / "logs"
    command = [sys.executable, "-m", "hpcbench", "submit", str(suite_file), "--save-dir", str(save_dir)]
    environment = {**os.environ, "PATH": f"{shims}:{os.environ['PATH']}"}
    assert subprocess.run(command, env=environment, capture_output=True, check=False).returncode == -signal.SIGKILL

    again = hpcbench("submit", str(suite_file), "--save-dir", str(save_dir))
    assert "1 job submitted" in again.stdout
    assert states(wait_until_over(save_dir), "train") == {"one": "completed"}
    assert sorted(s.state for s in read_submissions(SuitePaths(save_dir, "early"))) == ["abandoned", "submitted"]


def test_a_cancelled_job_is_cancelled_and_stays_so(slurm_cluster: Cluster, tmp_path: Path) -> None:
    suite = command_suite(
        [command_experiment("long", ("sleep", "300"), evals=["score"]), command_experiment("quick", ("true",))]
    )
    submit(suite, tmp_path)
    wait_until(lambda: view(gather(tmp_path), "long", "train").state is JobState.RUNNING, what="long runs")
    done = hpcbench("cancel", "long", "--save-dir", str(tmp_path))
    assert "2 jobs cancelled" in done.stdout
    collection = wait_until_over(tmp_path)
    assert states(collection, "train") == {"long": "cancelled", "quick": "completed"}
    assert states(collection, "eval-score") == {"long": "blocked"}
    assert submit(suite, tmp_path).num_jobs == 0


def test_a_part_of_two_arrays_is_cancelled_by_two_messages_and_nothing_else(
    slurm_cluster: Cluster, tmp_path: Path
) -> None:
    # Ended and forgotten, running, and waiting elements; evals that Slurm has split off and evals that it has not.
    suite = command_suite(
        [command_experiment(f"e{i:02}", ("sleep", "0" if i < 3 else "90"), evals=["score"]) for i in range(30)]
    )
    # Ten at once leave room for the evals of the quick ones.
    submit(suite, tmp_path, profile=ClusterProfile(array_throttle=10))
    wait_until(
        lambda: [states(gather(tmp_path), "eval-score")[f"e{i:02}"] for i in range(3)] == ["completed"] * 3,
        what="the quick ones end",
    )
    time.sleep(12)  # MinJobAge
    before = count_rpcs("REQUEST_KILL_JOB")["REQUEST_KILL_JOB"]
    chosen = {"e02", "e05", "e06", "e07", "e11", "e20", "e22", "e23", "e24", "e29"}
    done = hpcbench("cancel", *sorted(chosen), "--save-dir", str(tmp_path))
    assert "18 jobs cancelled" in done.stdout
    assert count_rpcs("REQUEST_KILL_JOB")["REQUEST_KILL_JOB"] == before + 2
    wait_until(lambda: set(live_elements()) == {f"e{i:02}" for i in range(3, 30)} - chosen, what="they are gone")
    assert sorted(live_elements().values()) == [2] * 18
    hpcbench("cancel", "--all", "--save-dir", str(tmp_path))
    assert count_rpcs("REQUEST_KILL_JOB")["REQUEST_KILL_JOB"] == before + 4
    trains = states(wait_until_over(tmp_path), "train")
    assert {name for name, state in trains.items() if state == "completed"} == {"e00", "e01", "e02"}
    assert set(trains.values()) == {"completed", "cancelled"}


def live_elements() -> dict[str, int]:
    """Return how many jobs of each experiment are pending or running, by Slurm alone; indices are experiments here."""
    found: dict[str, int] = {}
    for word in run_command(["squeue", "--me", "-r", "--noheader", "--states=PENDING,RUNNING", "--format=%K"]).split():
        found[f"e{int(word):02}"] = found.get(f"e{int(word):02}", 0) + 1
    return found


def test_retry_runs_the_train_job_and_its_eval_again(slurm_cluster: Cluster, tmp_path: Path) -> None:
    flag = tmp_path / "flag"
    suite = command_suite([command_experiment("flaky", ("test", "-e", str(flag)), evals=["score"])])
    submit(suite, tmp_path / "logs")
    assert states(wait_until_over(tmp_path / "logs"), "eval-score") == {"flaky": "blocked"}
    flag.touch()
    outcome = submit(suite, tmp_path / "logs", options=Options(retry=frozenset({JobState.FAILED})))
    assert outcome.num_jobs == 2
    collection = wait_until_over(tmp_path / "logs")
    assert [job.state for job in collection.jobs] == [JobState.COMPLETED, JobState.COMPLETED]
    record = view(collection, "flaky", "train").record
    assert record is not None
    assert [attempt.state for attempt in record.attempts] == [JobState.FAILED, JobState.COMPLETED]


def test_changed_arguments_are_not_passed_off_as_the_old_result(slurm_cluster: Cluster, tmp_path: Path) -> None:
    submit(command_suite([command_experiment("a", ("true",))]), tmp_path)
    wait_until_over(tmp_path)
    changed = command_suite([command_experiment("a", ("sleep", "0"))])
    outcome = submit(changed, tmp_path)
    assert outcome.num_jobs == 0
    assert [d.action for d in outcome.plan.decisions] == ["changed"]
    assert "command.command" in outcome.plan.decisions[0].why

    assert submit(changed, tmp_path, options=Options(force=True)).num_jobs == 1
    wait_until_over(tmp_path)
    old = sorted(path.name for path in (tmp_path / "commands" / "a" / "train").glob("record.*.json"))
    assert len(old) == 1
    record = read_json(tmp_path / "commands" / "a" / "train" / "record.json")
    assert record is not None
    assert record["request"]["command"]["command"] == ["sleep", "0"]


def test_an_eval_that_slurm_starts_wrongly_does_not_run(slurm_cluster: Cluster, tmp_path: Path) -> None:
    # Slurm counts a purged failed parent as satisfied; dropping the dependency by hand gives the same start.
    suite = command_suite([command_experiment("bad", ("sh", "-c", "sleep 2; exit 1"), evals=["score"])])
    outcome = submit(suite, tmp_path)
    eval_id = outcome.submitted[1].element_id(0)
    run_command(["scontrol", "update", f"JobId={eval_id}", "Dependency="])
    collection = wait_until_over(tmp_path)
    assert states(collection, "eval-score") == {"bad": "blocked"}
    assert not (tmp_path / "commands" / "bad" / "eval-score" / "record.json").exists()


def test_purged_and_cancelled_elements_decide_nothing_for_the_others(slurm_cluster: Cluster, tmp_path: Path) -> None:
    suite = command_suite(
        [
            command_experiment("bad", ("false",), evals=["score"]),
            command_experiment("slow", ("sleep", "16"), evals=["score"]),
            command_experiment("waits", ("true",), evals=["score"]),
            command_experiment("good", ("true",), evals=["score"]),
        ]
    )
    profile = ClusterProfile(array_throttle=1)
    trains, evals = submit(suite, tmp_path, profile=profile).submitted
    wait_until(lambda: view(gather(tmp_path), "slow", "train").state is JobState.RUNNING, what="slow runs")
    assert "2 jobs cancelled" in hpcbench("cancel", "waits", "--save-dir", str(tmp_path)).stdout
    collection = wait_until_over(tmp_path)
    assert states(collection, "train") == {
        "bad": "failed",
        "slow": "completed",
        "waits": "cancelled",
        "good": "completed",
    }
    assert states(collection, "eval-score") == {
        "bad": "blocked",
        "slow": "completed",
        "waits": "blocked",
        "good": "completed",
    }
    # Once Slurm has forgotten the failed parent (MinJobAge) it starts what depends on it; the eval itself does not run.
    known = ["squeue", "--me", "-h", "--states=all", f"--name={trains.key}"]
    wait_until(lambda: not run_command(known), what="the parent is purged")
    wrong = evals.model_copy(
        update={"key": f"{evals.key[:-4]}late", "state": "intent", "elements": {0: evals.elements[0]}}
    )
    paths = SuitePaths(tmp_path, "commands")
    write_submission(paths, wrong)
    SlurmScheduler(profile, tmp_path).submit(wrong, trains.scheduler_id)
    wait_until((paths.start_marks(wrong.key) / "0").exists, what="Slurm starts it")
    wait_until(lambda: not run_command(["squeue", "-h", f"--name={wrong.key}"]), what="it leaves")
    [log] = [file for file in paths.slurm_logs.glob("*_0.out") if "not run: " in file.read_text()]
    assert "its train job is failed" in log.read_text()
    assert not paths.job("bad", "eval-score").record.exists()


def test_broken_files_in_the_save_dir_stop_neither_status_nor_collect(slurm_cluster: Cluster, tmp_path: Path) -> None:
    suite = command_suite([command_experiment("a", ("true",)), command_experiment("b", ("true",))])
    submit(suite, tmp_path)
    wait_until_over(tmp_path)
    (tmp_path / "commands" / "a" / "train" / "record.json").write_text('{"schema_version": 1, "sta')
    (tmp_path / "commands" / "submissions" / "broken.json").write_text("[]")
    shown = hpcbench("status", "--save-dir", str(tmp_path))
    assert "b" in shown.stdout
    report = hpcbench("collect", "--save-dir", str(tmp_path))
    assert "| b" in report.stdout.replace("|b", "| b")


def test_where_arrays_are_forbidden_every_job_is_its_own(slurm_cluster: Cluster, tmp_path: Path) -> None:
    suite = command_suite(
        [command_experiment(name, (name,), evals=["score"]) for name in ("true", "false")],
    )
    outcome = submit(suite, tmp_path, profile=ClusterProfile(arrays=False))
    assert [(s.array, len(s.elements)) for s in outcome.submitted] == [(False, 1)] * 4
    collection = wait_until_over(tmp_path)
    assert states(collection, "train") == {"true": "completed", "false": "failed"}
    assert states(collection, "eval-score") == {"true": "completed", "false": "blocked"}
    # Settled: another look finds nothing to release or to cancel.
    before = count_rpcs("REQUEST_KILL_JOB", "REQUEST_UPDATE_JOB")
    gather(tmp_path)
    assert count_rpcs("REQUEST_KILL_JOB", "REQUEST_UPDATE_JOB") == before


def test_a_job_that_left_the_suite_is_watched_and_cancelled(slurm_cluster: Cluster, tmp_path: Path) -> None:
    save_dir = tmp_path / "logs"
    both = [command_experiment("stays", ("sleep", "8")), command_experiment("leaves", ("sleep", "300"))]
    submit(command_suite(both), save_dir)
    assert submit(command_suite(both[:1]), save_dir).num_jobs == 0
    wait_until(lambda: len(states(gather(save_dir), "train")) == 1, what="one experiment is left")

    shown = json.loads(hpcbench("status", "leaves", "--json", "--save-dir", str(save_dir)).stdout)["jobs"]
    assert [(job["experiment"], job["in_suite"]) for job in shown] == [("leaves", False)]
    report = hpcbench("collect", "--save-dir", str(save_dir)).stdout
    assert "1 experiment that the suite does not have any more" in report
    before = count_rpcs("REQUEST_JOB_INFO", "REQUEST_JOB_USER_INFO")
    done = hpcbench("status", "stays", "--watch", "--json", "--save-dir", str(save_dir))
    asked = sum(count_rpcs(*before).values()) - sum(before.values())
    last = json.loads(done.stdout.splitlines()[-1])["jobs"]
    assert [job["state"] for job in last] == ["completed"]
    assert asked == 1

    assert "1 job cancelled" in hpcbench("cancel", "leaves", "--save-dir", str(save_dir)).stdout

    def is_gone() -> bool:
        return not any(job.experiment == "leaves" for job in gather(save_dir).all_jobs)

    wait_until(is_gone, what="the cancelled job has left the queue")


def test_the_start_that_slurm_expects_is_shown(slurm_cluster: Cluster, tmp_path: Path) -> None:
    suite = command_suite([command_experiment("later", ("true",))])
    profile = ClusterProfile(extra_sbatch={"begin": "now+1hour"})
    [submission] = submit(suite, tmp_path, profile=profile).submitted
    try:
        [job] = json.loads(hpcbench("status", "--json", "--save-dir", str(tmp_path)).stdout)["jobs"]
        assert job["state"] == "pending"
        assert job["expected_start"] in job["reason"]
        assert datetime.fromisoformat(job["expected_start"]).astimezone() > datetime.now().astimezone()
    finally:
        run_command(["scancel", str(submission.scheduler_id)])
