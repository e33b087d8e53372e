"""How an attempt ended, told from the evidence it left.

In: exit status, files in the attempt's folder, and which signals came. Out: a state and a cause. It reads the attempt's
folder and decides; it writes nothing.
"""

from __future__ import annotations

import re
import signal
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from hpcbench.jsonfile import read_json
from hpcbench.paths import AttemptPaths, JobPaths
from hpcbench.record import Cause, CommandMetrics, EvalMetrics, Metrics, TaskResult
from hpcbench.request import JobRequest
from hpcbench.states import JobState

METRICS: TypeAdapter[Metrics] = TypeAdapter(Metrics)
LOG_TAIL_BYTES = 16_384
LOG_LINES = 12
OUT_OF_MEMORY_TYPES = frozenset({"OutOfMemoryError", "torch.OutOfMemoryError", "torch.cuda.OutOfMemoryError"})
GPU_OOM_TEXT = re.compile(r"CUDA out of memory|CUDA error: out of memory|CUBLAS_STATUS_ALLOC_FAILED|HIP out of memory")
INTERRUPTIONS = {
    "timeout": (JobState.TIMEOUT, "the time limit came near"),
    "terminate": (JobState.CANCELLED, "terminated by the scheduler or the user"),
    "preempted": (JobState.PREEMPTED, "preempted"),
}
HOST_OOM_TYPES = frozenset({"MemoryError"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Ending:
    """What the supervisor saw of the launcher's end."""

    exit_code: int
    """As subprocess gives it: negative is the signal that killed it."""
    stop_reason: str | None = None
    """timeout, terminate or preempted, when the supervisor asked the worker to stop."""
    killed_by_us: bool = False
    """The grace period ran out and the supervisor killed it."""
    oom_kills: int = 0
    """Rise of `oom_kill` in the job's memory cgroup."""


def conclude(
    request: JobRequest, ending: Ending, *, job: JobPaths, attempt: AttemptPaths
) -> tuple[JobState, Cause | None, Metrics | None]:
    """Return state, cause and metrics of an attempt."""
    if ending.stop_reason is not None and (
        ending.exit_code != 0 or attempt.interrupted.exists() or ending.killed_by_us
    ):
        return _interrupted(ending, attempt, job)
    failure = first_failure(attempt)
    if ending.exit_code == 0 and failure is None:
        return _completed(request, job, attempt)
    return _failed(ending, failure, job, attempt)


def _completed(
    request: JobRequest, job: JobPaths, attempt: AttemptPaths
) -> tuple[JobState, Cause | None, Metrics | None]:
    if request.cmd == "command" or (request.eval_args is not None and request.eval_args.command):
        return _program_metrics(request, attempt)
    value = read_json(attempt.metrics)
    if value is None:
        cause = Cause(
            type="no_metrics",
            message="ended with exit code 0 but left no metrics",
            exit_code=0,
            log=relative(attempt.log, job),
            lines=log_tail(attempt.log),
        )
        return JobState.FAILED, cause, None
    try:
        return JobState.COMPLETED, None, METRICS.validate_python(value)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        cause = Cause(type="bad_metrics", message=f"metrics are not valid: {place}: {first['msg']}", exit_code=0)
        return JobState.FAILED, cause, None


def _program_metrics(request: JobRequest, attempt: AttemptPaths) -> tuple[JobState, Cause | None, Metrics | None]:
    """Build a program's metrics from the file that HPCBENCH_METRICS named; training may write none."""
    raw = read_json(attempt.values)
    values = {str(k): v for k, v in (raw or {}).items() if isinstance(v, int | float | str | bool | None)}
    try:
        if request.cmd == "eval":
            numbers = {k: float(v) for k, v in values.items() if isinstance(v, int | float) and not isinstance(v, bool)}
            count = int(numbers.pop("num_samples", 0))
            if not numbers:
                message = 'the eval program wrote no {"metric": number} to the file named by HPCBENCH_METRICS'
                return JobState.FAILED, Cause(type="no_metrics", message=message, exit_code=0), None
            name = request.eval_dataset or "command"
            primary = next((key for key in numbers if not key.endswith("_stderr")), None)
            result = TaskResult(metrics=dict(numbers), num_samples=count)
            choice = "baseline" if request.train_folder is None else "output_model"
            metrics: Metrics = EvalMetrics(
                dataset=name, primary_task=name, primary_metric=primary, tasks={name: result}, checkpoint_choice=choice
            )
            return JobState.COMPLETED, None, metrics
        output = output_model(request, attempt)
        return (
            JobState.COMPLETED,
            None,
            CommandMetrics(values=values, output_model=None if output is None else str(output)),
        )
    except (ValidationError, ValueError) as error:
        message = f"{attempt.values.name}: not usable: {error}".splitlines()[0]
        return JobState.FAILED, Cause(type="bad_metrics", message=message, exit_code=0), None


def output_model(request: JobRequest, attempt: AttemptPaths) -> Path | None:
    """Return the absolute folder of the model that a command leaves behind, or None."""
    if request.command is None or request.command.output_model is None:
        return None
    base = Path(request.command.cwd) if request.command.cwd else attempt.folder
    return (base / request.command.output_model).absolute()


def _interrupted(ending: Ending, attempt: AttemptPaths, job: JobPaths) -> tuple[JobState, Cause | None, Metrics | None]:
    state, words = INTERRUPTIONS[ending.stop_reason or "terminate"]
    left = read_json(attempt.interrupted)
    saved = (
        f"; checkpoint at step {left['step']}" if left is not None and "step" in left else "; no checkpoint was made"
    )
    cause = Cause(
        type="interrupted",
        message=words + saved,
        exit_code=ending.exit_code if ending.exit_code >= 0 else None,
        signal=-ending.exit_code if ending.exit_code < 0 else None,
        log=relative(attempt.log, job),
    )
    return state, cause, None


def _failed(
    ending: Ending, failure: Mapping[str, Any] | None, job: JobPaths, attempt: AttemptPaths
) -> tuple[JobState, Cause | None, Metrics | None]:
    lines = log_tail(attempt.log)
    log = relative(attempt.log, job)
    code = ending.exit_code
    if failure is not None:
        kind, message = str(failure.get("type", "Exception")), str(failure.get("message", ""))
        hint = failure.get("hint")
        cause = Cause(
            type=kind,
            message=message or kind,
            exit_code=code if code >= 0 else None,
            log=log,
            lines=lines,
            hint=str(hint) if hint else None,
        )
        if kind in OUT_OF_MEMORY_TYPES or GPU_OOM_TEXT.search(message):
            return JobState.OUT_OF_MEMORY, cause, None
        state = JobState.HOST_OUT_OF_MEMORY if kind in HOST_OOM_TYPES else JobState.FAILED
        return state, cause, None
    if any(GPU_OOM_TEXT.search(line) for line in lines):
        message = next(line for line in lines if GPU_OOM_TEXT.search(line)).strip()
        return JobState.OUT_OF_MEMORY, Cause(type="OutOfMemoryError", message=message, log=log, lines=lines), None
    killed = -code if code < 0 else code - 128 if code > 128 else None  # noqa: PLR2004  # a shell's way to say "signal"
    if killed is not None:
        name = _signal_name(killed)
        if killed == signal.SIGKILL and ending.oom_kills > 0:
            message = "killed because the node's memory was not enough"
            cause = Cause(
                type="host_out_of_memory",
                message=message,
                signal=killed,
                log=log,
                lines=lines,
                hint="ask for more mem_gb",
            )
            return JobState.HOST_OUT_OF_MEMORY, cause, None
        hint = (
            "SIGKILL often means that memory was not enough; see the log, or ask for more mem_gb"
            if name == "SIGKILL"
            else None
        )
        return (
            JobState.FAILED,
            Cause(type="signal", message=f"killed by {name}", signal=killed, log=log, lines=lines, hint=hint),
            None,
        )
    return (
        JobState.FAILED,
        Cause(type="exit_code", message=f"exit code {code}", exit_code=code, log=log, lines=lines),
        None,
    )


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def first_failure(attempt: AttemptPaths) -> dict[str, Any] | None:
    """Return the failure that explains the others: an out-of-memory one, else the earliest of all ranks."""
    found = [value for file in attempt.folder.glob("failure-rank*.json") if (value := read_json(file)) is not None]
    if not found:
        return None
    found.sort(key=lambda value: (str(value.get("type")) not in OUT_OF_MEMORY_TYPES, str(value.get("at", ""))))
    return found[0]


def log_tail(path: Path, lines: int = LOG_LINES) -> tuple[str, ...]:
    """Return the last non-empty lines of a log as text without control characters."""
    try:
        with path.open("rb") as stream:
            stream.seek(0, 2)
            stream.seek(max(0, stream.tell() - LOG_TAIL_BYTES))
            text = stream.read().decode("utf-8", errors="replace")
    except OSError:
        return ()
    # A progress bar rewrites its line with carriage returns; only its last state is worth keeping.
    cleaned = [
        re.sub(r"\x1b\[[0-9;]*[A-Za-z]|[\x00-\x08\x0b-\x1f]", "", line.rsplit("\r", 1)[-1]) for line in text.split("\n")
    ]
    return tuple(line[:500] for line in cleaned if line.strip())[-lines:]


def relative(path: Path, job: JobPaths) -> str:
    """Return a path relative to the job's folder, as records keep it."""
    return path.relative_to(job.folder).as_posix()
