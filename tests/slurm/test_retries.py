"""Who retries what: Slurm what it interrupted, as often as the suite allows; a person the rest, with what fixes it."""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path

import pytest

from hpcbench.scheduler.slurm.commands import run_command
from hpcbench.schemas.record import read_record
from hpcbench.schemas.states import JobState
from hpcbench.status.explain import explain
from hpcbench.status.gather import gather
from hpcbench.storage.json_files import read_json
from tests.support.failure_causes import ECC, ONE_GPU, SAVES, WAITS, shell
from tests.support.interrupted_trainings import (
    job_of,
    preempt,
    record_of,
    scheduler_id,
    shims,
    slurm_state,
    start_requeued,
)
from tests.support.slurm_cluster.cluster import Cluster
from tests.support.slurm_suites import SCORE, hpcbench, states, view, wait_until, wait_until_over, write_suite

pytestmark = pytest.mark.slurm


def submit_commands(folder: Path, *experiments: dict[str, object], cluster: str = "auto", **values: object) -> Path:
    """Submit a suite `retries` of programs; return the save directory."""
    suite = {
        "cmd": "command",
        "device": "cpu",
        "requirements": {"mem_gb": 0.1, "time": "10m"},
        "experiment": list(experiments),
        **values,
    }
    save_dir = folder / "logs"
    file = write_suite(folder / "retries.yaml", suite)
    hpcbench("submit", str(file), "--cluster", cluster, "--save-dir", str(save_dir), cwd=folder)
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
    wait_until(job.attempt(1).log.exists, what="the job runs")
    preempt()
    start_requeued(element_id)
    collection = wait_until_over(save_dir)

    assert view(collection, "job", "train").state is JobState.PREEMPTED
    assert view(collection, "job", "eval-score").state is JobState.BLOCKED
    record = record_of(job)
    assert [attempt.state for attempt in record.attempts] == [JobState.PREEMPTED]
    assert record.cause is not None
    assert record.cause.message.startswith("all attempts are used up (max_attempts: 1); the last one: preempted")
    # It ran no second time, and Slurm lets it go; for a moment it is COMPLETING.
    assert not job.attempt(2).folder.exists()
    wait_until(lambda: slurm_state(element_id) in {"FAILED", ""}, what="Slurm lets it go")


def test_a_retry_says_and_asks_for_what_mends_a_job(slurm_cluster: Cluster, tmp_path: Path) -> None:
    hungry = '[ "$SLURM_MEM_PER_NODE" -gt 150 ] || { echo MemoryError; exit 1; }'
    unlucky = f'case "$HPCBENCH_ATTEMPT" in */attempt-1) echo "{ECC}"; exit 1;; esac'
    save_dir = submit_commands(
        tmp_path, {"name": "memory", **shell(hungry)}, {"name": "node", **shell(unlucky, **ONE_GPU)}
    )
    before = wait_until_over(save_dir)
    assert view(before, "memory", "train").state is JobState.HOST_OUT_OF_MEMORY
    node = view(before, "node", "train").node
    assert node in {"gpu1", "gpu2"}

    told = hpcbench("retry", "--dry-run", "--save-dir", str(save_dir)).stdout
    assert told.splitlines() == [
        "retries/memory/train: was host_out_of_memory: the node's memory was not enough: MemoryError",
        "  would help: mem_gb 0.1 -> 0.2",
        f"retries/node/train: was failed: the node's GPU or its driver is broken: {ECC}",
        f"  would help: exclude {node}",
        f"hpcbench retry --adjust --save-dir {save_dir} asks for what would help",
    ]
    assert {job.state for job in wait_until_over(save_dir).jobs} == {JobState.HOST_OUT_OF_MEMORY, JobState.FAILED}

    told = hpcbench("retry", "--adjust", "--save-dir", str(save_dir)).stdout
    assert "  changed: mem_gb 0.1 -> 0.2" in told
    after = wait_until_over(save_dir)
    assert {job.state for job in after.jobs} == {JobState.COMPLETED}
    for name in ("memory", "node"):
        job = job_of(save_dir, name, "retries")
        first, last = read_record(job.attempt(1).record), record_of(job)
        assert first is not None
        assert first.fingerprint == last.fingerprint
    claim = read_json(job_of(save_dir, "node", "retries").claim)
    assert claim is not None
    assert claim["node"] != node


SAVES_SLOWLY = (
    "trap \"trap '' TERM; echo saving; sleep 3; echo saved; exit 75\" TERM; echo working; while :; do sleep 0.2; done"
)
SAVES_AT_THE_LIMIT = (
    'case "$HPCBENCH_ATTEMPT" in */attempt-2) exit 0;; esac; n=0; '
    "trap 'n=$((n+1)); echo \"asked $n\"; [ $n -lt 2 ] || exit 75' TERM; echo working; while :; do sleep 0.2; done"
)
"""Once asked by its supervisor it goes on; the second TERM is that of Slurm, at the limit."""


def await_word(save_dir: Path, word: str, *names: str, attempt: int = 1) -> None:
    """Wait until all these programs have said a word."""
    logs = [job_of(save_dir, name, "retries").attempt(attempt).log for name in names]
    wait_until(
        lambda: all(log.exists() and word in log.read_text(encoding="utf-8").split() for log in logs),
        what=f"{names} say {word}",
    )


def warn(save_dir: Path, *names: str) -> None:
    """Send what Slurm sends near the time limit."""
    for name in names:
        run_command(["scancel", "--signal=USR2", scheduler_id(save_dir, name, "retries")])


def test_a_program_that_says_so_is_started_again_while_it_has_attempts(slurm_cluster: Cluster, tmp_path: Path) -> None:
    works = f'case "$HPCBENCH_ATTEMPT" in */attempt-2) exit 0;; esac; {SAVES}'
    names = ("resumes", "uses-up", "does-not")
    save_dir = submit_commands(
        tmp_path,
        {"name": "resumes", **shell(works)},
        {"name": "uses-up", **shell(SAVES, max_attempts=2)},
        {"name": "does-not", **shell(WAITS)},
    )
    await_word(save_dir, "working", *names)
    warn(save_dir, *names)
    for name in ("resumes", "uses-up"):
        start_requeued(scheduler_id(save_dir, name, "retries"))
    await_word(save_dir, "working", "uses-up", attempt=2)
    warn(save_dir, "uses-up")
    collection = wait_until_over(save_dir)
    assert states(collection, "train") == {"resumes": "completed", "uses-up": "timeout", "does-not": "timeout"}
    ends = {
        name: [attempt.state for attempt in record_of(job_of(save_dir, name, "retries")).attempts] for name in names
    }
    assert ends == {
        "resumes": [JobState.TIMEOUT, JobState.COMPLETED],
        "uses-up": [JobState.TIMEOUT, JobState.TIMEOUT],
        "does-not": [JobState.TIMEOUT],
    }
    told = {name: explain(view(collection, name, "train")).splitlines()[0] for name in ("uses-up", "does-not")}
    assert told == {
        "uses-up": "retries/uses-up/train: timeout (the time limit was reached; no attempts are left (max_attempts: 2))",
        "does-not": "retries/does-not/train: timeout (the time limit was reached; "
        "the program did not ask to be started again (exit code 75))",
    }


def test_a_job_that_is_cancelled_after_its_notice_does_not_come_back(slurm_cluster: Cluster, tmp_path: Path) -> None:
    names = ("hpcbench", "scancel", "queue")
    save_dir = submit_commands(
        tmp_path, *({"name": name, **shell(SAVES_SLOWLY)} for name in names[:2]), {"name": "queue", **shell(SAVES)}
    )
    await_word(save_dir, "working", *names)
    warn(save_dir, *names)
    await_word(save_dir, "saving", "hpcbench", "scancel")
    run_command(["scancel", scheduler_id(save_dir, "scancel", "retries")])
    hpcbench("cancel", "hpcbench", "--save-dir", str(save_dir))
    queued = scheduler_id(save_dir, "queue", "retries")
    wait_until(lambda: slurm_state(queued) == "PENDING", what="one is back in the queue")
    hpcbench("cancel", "queue", "--save-dir", str(save_dir))
    collection = wait_until_over(save_dir)

    assert states(collection, "train") == dict.fromkeys(names, "cancelled")
    for name in names:
        job = job_of(save_dir, name, "retries")
        assert "saved" in job.attempt(1).log.read_text(encoding="utf-8").split()
        assert not job.attempt(2).folder.exists()
        assert slurm_state(scheduler_id(save_dir, name, "retries")) in {"CANCELLED", ""}
    written = {name: record_of(job_of(save_dir, name, "retries")).state for name in names}
    assert written["queue"] == "timeout"
    # On a busy machine a cancellation may come after the record, and then finds the job in the queue.
    assert {written["hpcbench"], written["scancel"]} <= {"cancelled", "timeout"}


@pytest.mark.long
def test_a_job_that_still_saves_at_its_time_limit_comes_back(slurm_cluster: Cluster, tmp_path: Path) -> None:
    save_dir = submit_commands(tmp_path, {"name": "late", **shell(SAVES_AT_THE_LIMIT)})
    element_id = scheduler_id(save_dir, "late", "retries")
    await_word(save_dir, "working", "late")
    # Its USR2, 120 s ahead of the limit, is due now, and the limit in a minute or a little later.
    run_command(["scontrol", "update", f"JobId={element_id}", "TimeLimit=1"])
    wait_until(lambda: slurm_state(element_id) in {"COMPLETING", "TIMEOUT"}, what="the limit")
    start_requeued(element_id)
    collection = wait_until_over(save_dir)
    assert states(collection, "train") == {"late": "completed"}
    record = record_of(job_of(save_dir, "late", "retries"))
    assert [attempt.state for attempt in record.attempts] == [JobState.TIMEOUT, JobState.COMPLETED]
    assert "asked 2" in job_of(save_dir, "late", "retries").attempt(1).log.read_text(encoding="utf-8")


@pytest.fixture
def images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A profile whose jobs see none of Slurm's commands, as in an image, through a stand-in for apptainer."""
    inside = tmp_path / "inside"
    inside.mkdir()
    for name in ("sh", "sleep"):
        (inside / name).symlink_to(str(shutil.which(name)))
    enter = f'while [ "$1" != image.sif ]; do shift; done; shift; PATH={inside} exec "$@"'
    clusters = tmp_path / "configs" / "clusters"
    clusters.mkdir(parents=True)
    profile = {"python": sys.executable, "container": {"image": "image.sif"}}
    (clusters / "images.yaml").write_text(json.dumps(profile), encoding="utf-8")
    with shims(tmp_path, apptainer=enter) as folder:
        monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    return "images"


def wishes_in(save_dir: Path) -> dict[str, str]:
    """Return what jobs in containers left to their batch scripts, by file; what was read ends in `.done`."""
    found = save_dir.glob("retries/submissions/*.started/*.after*")
    return {path.name: path.read_text(encoding="utf-8").strip() for path in found}


@pytest.mark.long
def test_in_a_container_the_batch_script_requeues_and_dies_with_a_cancelled_job(
    slurm_cluster: Cluster, tmp_path: Path, images: str
) -> None:
    works = f'case "$HPCBENCH_ATTEMPT" in */attempt-2) exit 0;; esac; {SAVES}'
    save_dir = submit_commands(
        tmp_path, {"name": "resumes", **shell(works)}, {"name": "stays-away", **shell(SAVES_SLOWLY)}, cluster=images
    )
    comes, stays = (scheduler_id(save_dir, name, "retries") for name in ("resumes", "stays-away"))
    await_word(save_dir, "working", "resumes", "stays-away")
    warn(save_dir, "resumes", "stays-away")
    await_word(save_dir, "saving", "stays-away")
    run_command(["scancel", stays])
    start_requeued(comes)
    collection = wait_until_over(save_dir)
    assert states(collection, "train") == {"resumes": "completed", "stays-away": "cancelled"}
    assert not job_of(save_dir, "stays-away", "retries").attempt(2).folder.exists()
    # The cancelled one's batch script was gone before it could read.
    assert wishes_in(save_dir) == {"0.after.done": f"requeue {comes}", "1.after": f"stay {stays}"}


@pytest.mark.long
def test_in_a_container_the_batch_script_stays_until_a_preempted_job_is_requeued(
    slurm_cluster: Cluster, tmp_path: Path, images: str
) -> None:
    works = f'case "$HPCBENCH_ATTEMPT" in */attempt-2) exit 0;; esac; {WAITS}'
    requirements = {"mem_gb": 0.1, "time": "10m", "partition": "grace"}
    names = ("comes-back", "stays-away")
    save_dir = submit_commands(
        tmp_path, *({"name": name, **shell(works)} for name in names), cluster=images, requirements=requirements
    )
    comes, stays = (scheduler_id(save_dir, name, "retries") for name in names)
    await_word(save_dir, "working", *names)
    preempt()
    expected = {"0.after.done": f"stay {comes}", "1.after.done": f"stay {stays}"}
    wait_until(lambda: wishes_in(save_dir) == expected, what="both jobs have left their containers")
    # Nobody inside could tell, but to Slurm both still run.
    assert record_of(job_of(save_dir, "comes-back", "retries")).state is JobState.CANCELLED
    assert states(gather(save_dir), "train") == dict.fromkeys(names, "running")
    run_command(["scancel", stays])
    start_requeued(comes)
    collection = wait_until_over(save_dir)

    assert states(collection, "train") == {"comes-back": "completed", "stays-away": "cancelled"}
    attempts = record_of(job_of(save_dir, "comes-back", "retries")).attempts
    assert [attempt.state for attempt in attempts] == [JobState.PREEMPTED, JobState.COMPLETED]
    assert slurm_state(stays) in {"CANCELLED", ""}
    assert not job_of(save_dir, "stays-away", "retries").attempt(2).folder.exists()
