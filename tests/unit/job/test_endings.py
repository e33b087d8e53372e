"""Endings that need more than an exit code to be understood: ranks, full disks, memory that the kernel refused."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hpcbench.job.disk import RESERVE_BYTES, release_reserve, take_reserve
from hpcbench.job.outcome import NO_REQUEUE_HINT, Ending, conclude
from hpcbench.schemas.metrics import TrainMetrics
from hpcbench.schemas.record import Cause, Record, read_record
from hpcbench.schemas.states import JobState
from hpcbench.schemas.submission import Element, write_submission
from hpcbench.storage.json_files import read_json, write_json
from hpcbench.storage.paths import JobPaths, SuitePaths
from hpcbench.worker.measure import formulas as metrics
from hpcbench.worker.measure.formulas import Step
from tests.support.job_cases import command, experiment, submission
from tests.unit.plan.test_plan import plan

TORCHRUN = """\
Root Cause (first observed failure):
[0]:
  time      : 2026-11-21_10:00:00
  rank      : 1 (local_rank: 1)
  exitcode  : -11 (pid: 4711)
  error_file: <N/A>
  traceback : Signal 11 (SIGSEGV) received by PID 4711
"""
LOST_RANK = {"type": "DistBackendError", "message": "Connection closed by peer [127.0.0.1]:4711"}
KILLED = Ending(exit_code=-signal.SIGKILL)


def judge(
    folder: Path, ending: Ending, *, log: str = "", failure: dict[str, Any] | None = None
) -> tuple[JobState, Cause]:
    job = JobPaths(folder)
    attempt = job.attempt(1)
    attempt.folder.mkdir(parents=True)
    attempt.log.write_text(log, encoding="utf-8")
    if failure is not None:
        write_json(attempt.failure(0), failure)
    state, cause, _ = conclude(plan(experiment("a"))[0], ending, job=job, attempt=attempt)
    assert cause is not None
    return state, cause


@pytest.mark.parametrize(
    ("ending", "log", "failure", "expected"),
    [
        (Ending(exit_code=1), TORCHRUN, None, (JobState.FAILED, "killed by SIGSEGV")),
        (
            Ending(exit_code=1, oom_kills=1),
            TORCHRUN.replace("11", "9"),
            LOST_RANK,
            (JobState.HOST_OUT_OF_MEMORY, "killed because the node's memory was not enough"),
        ),
        (
            Ending(exit_code=1),
            "numpy._core._exceptions._ArrayMemoryError: Unable to allocate 8.00 GiB\n",
            None,
            (
                JobState.HOST_OUT_OF_MEMORY,
                "the node's memory was not enough: numpy._core._exceptions._ArrayMemoryError: Unable to allocate 8.00 GiB",
            ),
        ),
        (
            Ending(exit_code=1),
            "",
            {"type": "RuntimeError", "message": "DefaultCPUAllocator: can't allocate memory: you tried to allocate 9"},
            (
                JobState.HOST_OUT_OF_MEMORY,
                "the node's memory was not enough: DefaultCPUAllocator: can't allocate memory: you tried to allocate 9",
            ),
        ),
        (
            Ending(exit_code=1),
            "",
            {"type": "OSError", "message": "[Errno 28] No space left on device"},
            (JobState.FAILED, "the disk is full, or a quota is used up: [Errno 28] No space left on device"),
        ),
        (
            Ending(exit_code=1, disk_full=True),
            "",
            None,
            (JobState.FAILED, "the disk is full, or a quota is used up: the log's last words are lost"),
        ),
    ],
)
def test_the_cause_is_named_and_not_what_follows_from_it(
    tmp_path: Path, ending: Ending, log: str, failure: dict[str, Any] | None, expected: tuple[JobState, str]
) -> None:
    found, cause = judge(tmp_path, ending, log=log, failure=failure)
    assert (found, cause.message) == expected
    assert cause.lines == tuple(log.splitlines())[-12:]


def test_a_training_that_diverged_has_failed_and_keeps_its_figures(tmp_path: Path) -> None:
    job = JobPaths(tmp_path)
    found_cause: Cause | None = None
    measured = {"parameters": {"trainable": 1, "total": 2}, "num_steps": 9, "num_samples": 9, "num_tokens": 9}
    for diverged_at, expected in ((None, JobState.COMPLETED), (4, JobState.FAILED)):
        value = {"kind": "train", **measured, "diverged_at_step": diverged_at}
        write_json(job.attempt(1).metrics, value)
        request = plan(experiment("a"))[0]
        state, found_cause, found = conclude(request, Ending(exit_code=0), job=job, attempt=job.attempt(1))
        assert state is expected
        assert isinstance(found, TrainMetrics)
    assert found_cause is not None
    assert found_cause.message == "diverged: no finite loss (NaN or infinity) from step 4 on"


@pytest.mark.parametrize(
    ("losses", "expected"),
    [([1.0, None, None], 2), ([None, 1.0], None), ([None, 1.0, None], 3), ([1.0], None), ([], None)],
)
def test_a_training_diverged_when_its_last_losses_were_not_finite(
    losses: list[float | None], expected: int | None
) -> None:
    steps = [
        Step(step=number, loss=loss, step_time_s=1, num_tokens=1, num_samples=1)
        for number, loss in enumerate(losses, start=1)
    ]
    assert metrics.divergence(steps) == expected


TOLD = "timeout"


@pytest.mark.parametrize(
    ("ending", "figures", "state", "message"),
    [
        (Ending(exit_code=0, stop_reason=TOLD), False, JobState.TIMEOUT, "the program left at TERM"),
        (Ending(exit_code=75, stop_reason=TOLD), False, JobState.TIMEOUT, "the program left at TERM with exit code 75"),
        (Ending(exit_code=-15, stop_reason=TOLD), False, JobState.TIMEOUT, "the program left at TERM"),
        (
            Ending(exit_code=-9, stop_reason=TOLD, killed_by_us=True),
            False,
            JobState.TIMEOUT,
            "the program had to be killed",
        ),
        (Ending(exit_code=0, stop_reason=TOLD), True, JobState.COMPLETED, ""),
        (Ending(exit_code=0), False, JobState.COMPLETED, ""),
    ],
)
def test_a_program_that_was_told_to_stop_is_done_only_with_figures(
    tmp_path: Path, ending: Ending, figures: bool, state: JobState, message: str
) -> None:
    job = JobPaths(tmp_path)
    job.attempt(1).folder.mkdir(parents=True)
    if figures:
        write_json(job.attempt(1).values, {"loss": 1.5})
    found, cause, _ = conclude(plan(command("a"))[0], ending, job=job, attempt=job.attempt(1))
    assert found is state
    assert ("" if cause is None else cause.message) == (f"the time limit came near; {message}" if message else "")


@pytest.mark.parametrize(
    ("reason", "may_requeue", "expected"),
    [("timeout", False, NO_REQUEUE_HINT), ("timeout", True, None), ("terminate", False, None)],
)
def test_a_job_that_slurm_may_not_requeue_says_so(
    tmp_path: Path, reason: str, may_requeue: bool, expected: str | None
) -> None:
    ending = Ending(exit_code=75, stop_reason=reason, may_requeue=may_requeue)
    assert judge(tmp_path, ending)[1].hint == expected


def test_the_reserve_takes_real_space_and_goes(tmp_path: Path) -> None:
    path = tmp_path / "reserve.bin"
    take_reserve(path)
    assert path.stat().st_blocks * 512 >= RESERVE_BYTES
    release_reserve(path)
    assert not path.exists()
    take_reserve(tmp_path / "no" / "folder")


@pytest.fixture
def memory_cgroup() -> Iterator[Path]:
    """A cgroup with little memory; only root may make one, and not in every container."""
    root = next((path for path in map(Path, ("/sys/fs/cgroup/memory", "/sys/fs/cgroup")) if path.is_dir()), Path("/"))
    group = root / f"hpcbench-test-{os.getpid()}"
    limit = group / ("memory.limit_in_bytes" if root.name == "memory" else "memory.max")
    try:
        group.mkdir()
    except OSError as error:
        pytest.skip(f"no memory cgroup can be made here: {error}")
    try:
        limit.write_text(str(150 << 20), encoding="ascii")
        yield group
    except OSError as error:
        pytest.skip(f"no memory cgroup can be limited here: {error}")
    finally:
        group.rmdir()


def test_a_kill_by_the_kernel_for_memory_is_host_out_of_memory(memory_cgroup: Path, tmp_path: Path) -> None:
    paths = SuitePaths(tmp_path, "tuners")
    base = command("a")
    assert base.command is not None
    hungry = (sys.executable, "-c", "print('loading', flush=True); len(b'1' * (400 << 20))")
    request = plan(
        experiment(
            "a",
            cmd="command",
            requirements=base.requirements,
            args=None,
            eval_dataset=(),
            eval_args={},
            command=base.command.model_copy(update={"command": hungry}),
        )
    )[0]
    job = paths.job("a", "train")
    write_json(job.request, request.model_dump(mode="json"))
    mine = submission(elements={0: Element(experiment="a", job="train", fingerprint=request.fingerprint)})
    write_submission(paths, mine)
    start = [sys.executable, "-m", "hpcbench.job", str(paths.submission(mine.key)), "--index", "0"]
    enter = f'echo $$ > {memory_cgroup}/cgroup.procs; exec "$@"'
    subprocess.run(["sh", "-c", enter, "sh", *start], check=False, capture_output=True)
    record: Record | None = read_record(job.record)
    assert record is not None, read_json(job.claim)
    assert record.state is JobState.HOST_OUT_OF_MEMORY
    assert record.cause is not None
    assert record.cause.message == "killed because the node's memory was not enough"
    assert record.cause.lines == ("loading",)
