"""Trainings that Slurm interrupts: they come back where that is right, and end as if nothing had happened."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest

from hpcbench.scheduler.slurm.commands import run_command
from hpcbench.schemas.states import JobState
from hpcbench.storage.json_files import read_json
from tests.support.interrupted_trainings import (
    assert_no_orphans,
    assert_same_result,
    await_record,
    await_step,
    await_training,
    find_process,
    job_of,
    metrics_of,
    preempt,
    processes_of,
    record_of,
    scheduler_id,
    slurm_state,
    start_requeued,
    step_seconds,
    stop_reason,
    submit_trainings,
    training,
)
from tests.support.slurm_cluster.cluster import Cluster
from tests.support.slurm_suites import view, wait_until, wait_until_over

pytestmark = [pytest.mark.slurm, pytest.mark.train]

LORA: dict[str, Any] = {}
FULL: dict[str, Any] = {"args": {"sft_type": "full", "learning_rate": 1e-3}}
DDP: dict[str, Any] = {"requirements": {"ddp": 2}, "args": {"batch_size": 8}}
FULL_DDP: dict[str, Any] = {"requirements": {"ddp": 2}, "args": {**FULL["args"], "batch_size": 8}}
KINDS = pytest.mark.parametrize("values", [LORA, FULL, DDP, FULL_DDP], ids=["lora", "full", "ddp", "full-ddp"])


def check_against_uninterrupted(folder: Path, save_dir: Path, values: dict[str, Any]) -> None:
    """Train the same without interruption, and compare."""
    other = folder / "uninterrupted"
    other.mkdir()
    reference = submit_trainings(other, training("job", **values))
    wait_until_over(save_dir)
    wait_until_over(reference)
    assert_same_result(job_of(save_dir, "job"), job_of(reference, "job"))
    assert_no_orphans(save_dir)
    # Every step of every attempt is counted, once, and the minutes between the attempts are not.
    seconds = step_seconds(job_of(save_dir, "job"))
    assert metrics_of(job_of(save_dir, "job")).train_time_s == pytest.approx(sum(seconds.values()))


def test_preemption_and_time_limit_change_no_loss(slurm_cluster: Cluster, tmp_path: Path) -> None:
    # What all trainings have in common, in the kind that has the most; the long tests have each kind.
    values = {**FULL_DDP, "args": {**FULL_DDP["args"], "max_steps": 40}}
    requirements = {**FULL_DDP["requirements"], "partition": "low"}
    save_dir = submit_trainings(tmp_path, training("job", **{**values, "requirements": requirements}))
    job, element_id = job_of(save_dir, "job"), scheduler_id(save_dir, "job")
    await_step(job, 3)
    preempt()
    start_requeued(element_id)
    await_training(job, attempt=2)
    # What Slurm sends near the time limit, to the same processes; it looks at the limits only every 30 s.
    run_command(["scancel", "--signal=USR2", element_id])
    await_record(job, "timeout")
    start_requeued(element_id)
    check_against_uninterrupted(tmp_path, save_dir, values)

    attempts = record_of(job).attempts
    assert [attempt.number for attempt in attempts] == [1, 2, 3]
    assert [attempt.restart_count for attempt in attempts] == [0, 1, 2]
    # Slurm leaves KillWait (5 s here) between TERM and KILL: enough for the checkpoint, on a busy machine not for the record.
    assert attempts[0].state in {JobState.PREEMPTED, JobState.LOST}
    assert [attempt.state for attempt in attempts[1:]] == [JobState.TIMEOUT, JobState.COMPLETED]
    first, second = metrics_of(job).resumed_from_steps
    assert 0 < first < second < 40


@pytest.mark.long
@KINDS
def test_a_time_limit_of_slurm_changes_no_loss(slurm_cluster: Cluster, tmp_path: Path, values: dict[str, Any]) -> None:
    values = {**values, "args": {**values.get("args", {}), "max_steps": 1500}}
    save_dir = submit_trainings(tmp_path, training("job", **values))
    job, element_id = job_of(save_dir, "job"), scheduler_id(save_dir, "job")
    await_training(job)
    # Its USR2, 120 s ahead of the limit, is due now.
    run_command(["scontrol", "update", f"JobId={element_id}", "TimeLimit=3"])
    await_record(job, "timeout")
    start_requeued(element_id)
    run_command(["scontrol", "update", f"JobId={element_id}", "TimeLimit=10"])
    check_against_uninterrupted(tmp_path, save_dir, values)
    assert [attempt.state for attempt in record_of(job).attempts] == [JobState.TIMEOUT, JobState.COMPLETED]


@pytest.mark.long
@KINDS
@pytest.mark.parametrize("setup", ["no_grace", "grace", "user_signal"])
def test_two_preemptions_change_no_loss(
    slurm_cluster: Cluster, tmp_path: Path, setup: str, values: dict[str, Any]
) -> None:
    partition = "low" if setup == "no_grace" else "grace"
    requirements = {**values.get("requirements", {}), "partition": partition}
    if setup == "user_signal":
        with slurm_cluster.changed("SlurmctldParameters=preempt_send_user_signal"):
            save_dir = preempt_twice(tmp_path, {**values, "requirements": requirements})
    else:
        save_dir = preempt_twice(tmp_path, {**values, "requirements": requirements})
    check_against_uninterrupted(tmp_path, save_dir, values)
    states = [attempt.state for attempt in record_of(job_of(save_dir, "job")).attempts]
    expected = {JobState.PREEMPTED} if setup != "no_grace" else {JobState.PREEMPTED, JobState.LOST}
    assert len(states) == 3
    assert set(states[:2]) <= expected
    # With preempt_send_user_signal it is the USR2 that stops a training, long before the TERM at the end of its grace.
    reasons = [stop_reason(job_of(save_dir, "job"), attempt=number) for number in (1, 2)]
    assert reasons == (["timeout"] * 2 if setup == "user_signal" else ["terminate"] * 2)


def preempt_twice(folder: Path, values: dict[str, Any]) -> Path:
    """Submit a training and preempt it twice; return the save directory once it runs for the third time."""
    save_dir = submit_trainings(folder, training("job", **values))
    job, element_id = job_of(save_dir, "job"), scheduler_id(save_dir, "job")
    for number in (1, 2):
        await_training(job, attempt=number)
        before = set(processes_of(save_dir))
        preempt()
        wait_until(lambda: slurm_state(element_id) in {"COMPLETING", "PENDING"}, what="preempted")
        start_requeued(element_id)
        assert not before & set(processes_of(save_dir))
    return save_dir


def test_what_is_killed_stays_dead_and_leaves_no_process(slurm_cluster: Cluster, tmp_path: Path) -> None:
    names = ("scancel", "supervisor", "stepd")
    save_dir = submit_trainings(tmp_path, *(training(name, args={"max_steps": 100_000}) for name in names))
    for name in names:
        await_training(job_of(save_dir, name))
    cancelled = scheduler_id(save_dir, "scancel")
    run_command(["scancel", cancelled])
    os.kill(find_process(save_dir, "hpcbench.job", experiment="supervisor"), signal.SIGKILL)
    os.kill(parent_of(find_process(save_dir, "hpcbench.job", experiment="stepd")), signal.SIGKILL)
    wait_until(
        lambda: all(words.startswith("srun ") for words in processes_of(save_dir).values()),
        what="supervisors and workers are gone",
    )
    # Without slurmstepd its srun waits for ever (seen on 22.05): the node is free, the job is not over to Slurm.
    run_command(["scancel", scheduler_id(save_dir, "stepd")])
    assert_no_orphans(save_dir)
    collection = wait_until_over(save_dir)

    assert view(collection, "scancel", "train").state is JobState.CANCELLED
    assert view(collection, "supervisor", "train").state is JobState.FAILED
    assert view(collection, "stepd", "train").state is JobState.CANCELLED
    assert record_of(job_of(save_dir, "scancel")).state is JobState.CANCELLED
    assert slurm_state(cancelled) in {"CANCELLED", ""}
    for name in names:
        assert [path.name for path in job_of(save_dir, name).folder.glob("attempt-*")] == ["attempt-1"]


@pytest.mark.long
def test_a_node_that_is_lost_loses_its_claim_too(slurm_cluster: Cluster, tmp_path: Path) -> None:
    # Only slurmd dies: the job on the lost node runs on beside its own second attempt.
    save_dir = submit_trainings(
        tmp_path, training("job", args={"max_steps": 400, "save_steps": 1000, "eval_steps": 1000})
    )
    job, element_id = job_of(save_dir, "job"), scheduler_id(save_dir, "job")
    await_training(job)
    old = find_process(save_dir, "hpcbench.job", experiment="job")
    node = run_command(["squeue", "--noheader", "--format=%N", f"--job={element_id}"]).strip()
    try:
        slurm_cluster.end_slurmd(node)
        run_command(["scontrol", "update", f"NodeName={node}", "State=DOWN", "Reason=test"])
        start_requeued(element_id)
        await_training(job, attempt=2)
        assert Path(f"/proc/{old}").exists()
        claim = read_json(job.claim)
        assert claim is not None
        assert claim["restart_count"] == 1
        wait_until(lambda: not Path(f"/proc/{old}").exists(), what="the old attempt ends")
        wait_until_over(save_dir)
    finally:
        slurm_cluster.start_slurmd(node)
    record = record_of(job)
    assert record.state is JobState.COMPLETED
    assert [attempt.restart_count for attempt in record.attempts] == [0, 1]
    assert record.attempts[-1].number == 2
    assert read_json(job.claim) == claim
    assert_no_orphans(save_dir)


def test_two_nodes_train_as_one(slurm_cluster: Cluster, tmp_path: Path) -> None:
    values = {"args": {"batch_size": 8, "max_steps": 10, "eval_steps": 5}}
    save_dir = submit_trainings(
        tmp_path,
        training("nodes", requirements={"nodes": 2, "ddp": 2}, **values),
        training("one", requirements={"ddp": 2}, **values),
    )
    collection = wait_until_over(save_dir)
    assert {job.state for job in collection.jobs} == {JobState.COMPLETED}, collection.jobs
    nodes, one = metrics_of(job_of(save_dir, "nodes")), metrics_of(job_of(save_dir, "one"))
    assert nodes.train_loss == one.train_loss
    assert len(nodes.memory) == 2
    assert record_of(job_of(save_dir, "nodes")).environment["slurm"]["job_nodelist"] == "gpu[1-2]"
    assert_no_orphans(save_dir)


@pytest.mark.long
@pytest.mark.parametrize("fsdp", ["", "full_shard"])
def test_a_preemption_of_two_nodes_changes_no_loss(slurm_cluster: Cluster, tmp_path: Path, fsdp: str) -> None:
    values = {"requirements": {"nodes": 2, "ddp": 2, "partition": "low"}, "args": {"batch_size": 8, "fsdp": fsdp}}
    save_dir = submit_trainings(tmp_path, training("job", **values))
    job, element_id = job_of(save_dir, "job"), scheduler_id(save_dir, "job")
    await_step(job, 12)
    before = set(processes_of(save_dir))
    preempt()
    start_requeued(element_id)
    assert not before & set(processes_of(save_dir))
    check_against_uninterrupted(tmp_path, save_dir, values)
    record = record_of(job)
    assert record.environment["slurm"]["job_nodelist"] == "gpu[1-2]"
    assert len(record.attempts) == 2
    assert record.attempts[0].state in {JobState.PREEMPTED, JobState.LOST}
    # The second attempt went on where the first one was stopped.
    assert metrics_of(job).resumed_from_steps[0] >= 10
    assert metrics_of(job).took_effect.get("fsdp") == ("FSDP2 full_shard over 2 ranks" if fsdp else None)


@pytest.mark.long
def test_a_rank_killed_on_the_second_node_fails_the_job(slurm_cluster: Cluster, tmp_path: Path) -> None:
    save_dir = submit_trainings(
        tmp_path, training("nodes", requirements={"nodes": 2, "ddp": 2}, args={"batch_size": 8, "max_steps": 100_000})
    )
    await_training(job_of(save_dir, "nodes"))
    os.kill(find_process(save_dir, "hpcbench.worker", rank="1"), signal.SIGKILL)
    [job] = wait_until_over(save_dir).jobs
    assert job.state is JobState.FAILED
    assert_no_orphans(save_dir)


def parent_of(pid: int) -> int:
    """Return a process's parent."""
    return int(Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[1])
