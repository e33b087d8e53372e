"""Who retries what: Slurm what it interrupted, as often as the suite allows; a person the rest, with what mends it."""

from __future__ import annotations

from pathlib import Path

import pytest

from hpcbench.jsonfile import read_json
from hpcbench.record import read_record
from hpcbench.scheduler.slurm import run_command
from hpcbench.states import JobState
from tests.slurm.causes import ECC, WAITS, shell
from tests.slurm.cluster import Cluster
from tests.slurm.suites import SCORE, hpcbench, states, view, wait_until, wait_until_over, write_suite
from tests.slurm.trainings import job_of, preempt, record_of, scheduler_id, slurm_state, start_requeued

pytestmark = pytest.mark.slurm


def submit_commands(folder: Path, *experiments: dict[str, object], **values: object) -> Path:
    """Submit a suite `retries` of programs; return the save directory."""
    suite = {
        "cmd": "command",
        "device": "cpu",
        "requirements": {"mem_gb": 0.1, "time": "10m"},
        "experiment": list(experiments),
        **values,
    }
    save_dir = folder / "logs"
    hpcbench("submit", str(write_suite(folder / "retries.yaml", suite)), "--save-dir", str(save_dir))
    return save_dir


def test_a_job_is_preempted_as_often_as_its_attempts_allow(slurm_cluster: Cluster, tmp_path: Path) -> None:
    save_dir = submit_commands(
        tmp_path,
        {"name": "job", **shell(WAITS, requirements={"partition": "low"})},
        max_attempts=1,
        eval_dataset=["score"],
        eval_args={"command": list(SCORE)},
    )
    job, element_id = job_of(save_dir, "job", "retries"), scheduler_id(save_dir, "job", "retries")
    wait_until(job.attempt(1).log.exists, timeout_s=60, what="the job runs")
    preempt()
    start_requeued(element_id)
    collection = wait_until_over(save_dir, timeout_s=60)

    assert view(collection, "job", "train").state is JobState.PREEMPTED
    assert view(collection, "job", "eval-score").state is JobState.BLOCKED
    record = record_of(job)
    assert [attempt.state for attempt in record.attempts] == [JobState.PREEMPTED]
    assert record.cause is not None
    assert record.cause.message.startswith("all attempts are used up (max_attempts: 1); the last one: preempted")
    # It ran no second time, and Slurm has let it go.
    assert not job.attempt(2).folder.exists()
    assert slurm_state(element_id) in {"FAILED", ""}


def test_a_retry_says_and_asks_for_what_mends_a_job(slurm_cluster: Cluster, tmp_path: Path) -> None:
    hungry = '[ "$SLURM_MEM_PER_NODE" -gt 150 ] || { echo MemoryError; exit 1; }'
    unlucky = f'case "$HPCBENCH_ATTEMPT" in */attempt-1) echo "{ECC}"; exit 1;; esac'
    save_dir = submit_commands(tmp_path, {"name": "memory", **shell(hungry)}, {"name": "node", **shell(unlucky)})
    before = wait_until_over(save_dir, timeout_s=60)
    assert view(before, "memory", "train").state is JobState.HOST_OUT_OF_MEMORY
    node = view(before, "node", "train").node
    assert node in {"gpu1", "gpu2"}

    told = hpcbench("retry", "--dry-run", "--save-dir", str(save_dir)).stdout
    assert told.splitlines() == [
        "retries/memory/train: was host_out_of_memory: the node's memory was not enough: MemoryError",
        "  would help: mem_gb 0.1 -> 0.2",
        f"retries/node/train: was failed: the node's GPU or its driver is broken: {ECC}",
        f"  would help: exclude {node}",
        "hpcbench retry --adjust asks for what would help",
    ]
    assert {job.state for job in wait_until_over(save_dir).jobs} == {JobState.HOST_OUT_OF_MEMORY, JobState.FAILED}

    told = hpcbench("retry", "--adjust", "--save-dir", str(save_dir)).stdout
    assert "  changed: mem_gb 0.1 -> 0.2" in told
    after = wait_until_over(save_dir, timeout_s=60)
    assert {job.state for job in after.jobs} == {JobState.COMPLETED}
    for name in ("memory", "node"):
        job = job_of(save_dir, name, "retries")
        first, last = read_record(job.attempt(1).record), record_of(job)
        assert first is not None
        assert first.fingerprint == last.fingerprint
    claim = read_json(job_of(save_dir, "node", "retries").claim)
    assert claim is not None
    assert claim["node"] != node


def test_a_program_that_says_so_is_started_again_after_its_time_limit(slurm_cluster: Cluster, tmp_path: Path) -> None:
    works = (
        'case "$HPCBENCH_ATTEMPT" in */attempt-2) exit 0;; esac; trap "echo saved; exit 75" TERM; echo working; '
        "while :; do sleep 0.2; done"
    )
    save_dir = submit_commands(tmp_path, {"name": "resumes", **shell(works)}, {"name": "does-not", **shell(WAITS)})
    names = ("resumes", "does-not")
    logs = [job_of(save_dir, name, "retries").attempt(1).log for name in names]
    wait_until(lambda: all(log.exists() and log.stat().st_size > 0 for log in logs), timeout_s=60, what="both run")
    for name in names:
        run_command(["scancel", "--signal=USR2", scheduler_id(save_dir, name, "retries")])
    start_requeued(scheduler_id(save_dir, "resumes", "retries"))
    collection = wait_until_over(save_dir, timeout_s=60)
    assert states(collection, "train") == {"resumes": "completed", "does-not": "timeout"}
    attempts = record_of(job_of(save_dir, "resumes", "retries")).attempts
    assert [attempt.state for attempt in attempts] == [JobState.TIMEOUT, JobState.COMPLETED]
    assert len(record_of(job_of(save_dir, "does-not", "retries")).attempts) == 1
