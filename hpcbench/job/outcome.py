"""How an attempt ended: a state and a cause, by its exit status, its files and the signals that came; never writes."""

from __future__ import annotations

import re
import signal
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from hpcbench.errors import RecordError, name_first
from hpcbench.job.program_figures import Figures, read_figures
from hpcbench.schemas.metrics import CommandMetrics, EvalMetrics, Metrics, TaskResult, TrainMetrics
from hpcbench.schemas.notes import Failure, Interrupted
from hpcbench.schemas.record import DISK_FULL, TERMINATED, Cause
from hpcbench.schemas.request import JobRequest
from hpcbench.schemas.states import COMES_BACK, JobState
from hpcbench.status.log_patterns import find_cause, free_space
from hpcbench.status.logs import log_tail
from hpcbench.storage.clock import LONG_AGO, parse_moment
from hpcbench.storage.json_files import read_json
from hpcbench.storage.paths import AttemptPaths, JobPaths

METRICS: TypeAdapter[Metrics] = TypeAdapter(Metrics)
OUT_OF_MEMORY_TYPES = frozenset({"OutOfMemoryError", "torch.OutOfMemoryError", "torch.cuda.OutOfMemoryError"})
GPU_OOM_TEXT = re.compile(r"CUDA out of memory|CUDA error: out of memory|CUBLAS_STATUS_ALLOC_FAILED|HIP out of memory")
INTERRUPTIONS = {
    "timeout": (JobState.TIMEOUT, "the time limit came near"),
    "terminate": (JobState.CANCELLED, TERMINATED),
    "preempted": (JobState.PREEMPTED, "preempted"),
}
NO_REQUEUE_HINT = (
    "Slurm may not put it back into the queue: `requeue: false` in the cluster profile, or not allowed here"
)
HOST_OOM_TYPES = frozenset({"MemoryError"})
HOST_OOM_TEXT = re.compile(
    r"^MemoryError\b|ArrayMemoryError|DefaultCPUAllocator: (can't allocate|not enough) memory|Cannot allocate memory"
    r"|std::bad_alloc"
)
SHELL_SIGNALS = 128  # a shell's exit code for signal n is this and n; larger ones are a program's, as of exit(-1)
TORCHRUN_SIGNAL = re.compile(r"exitcode\s*: -(\d+) \(pid")  # in torchrun's report of its failed ranks
DIVERGED = "diverged"
DIVERGED_HINT = (
    "the same again would diverge again; try a lower learning_rate, a longer warm-up, a smaller max_grad_norm, "
    "or bf16 instead of fp16"
)
MORE_MEMORY = "ask for more mem_gb"
SIGNAL_HINTS = {
    "SIGKILL": "SIGKILL often means that memory was not enough; see the log, or ask for more mem_gb",
    "SIGSEGV": "a crash in compiled code; the log says where Python was",
    "SIGBUS": "often a full /dev/shm (data loader workers), or a mapped file that somebody cut short",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Ending:
    """What the supervisor saw of the launcher's end."""

    exit_code: int  # as subprocess gives it: negative is the signal that killed it
    stop_reason: str | None = None  # timeout, terminate or preempted, when the supervisor asked the worker to stop
    may_requeue: bool = True  # whether Slurm may put the job back into the queue, as far as that is known
    killed_by_us: bool = False  # the grace period ran out and the supervisor killed it
    oom_kills: int = 0  # rise of `oom_kill` in the job's memory cgroup
    disk_full: bool = False  # nothing more could be written into the attempt's folder at the end


def conclude(
    request: JobRequest, ending: Ending, *, job: JobPaths, attempt: AttemptPaths
) -> tuple[JobState, Cause | None, Metrics | None]:
    """Return state, cause and metrics of an attempt."""
    # A program that tidies up after TERM and leaves with 0 has not done its work; figures prove that one has.
    is_program = bool(request.program)
    left_early = is_program and not attempt.values.exists()
    if ending.stop_reason is not None and (
        ending.exit_code != 0 or attempt.interrupted.exists() or ending.killed_by_us or left_early
    ):
        return _interrupted(ending, attempt, job, is_program=is_program)
    failure = first_failure(attempt)
    if ending.exit_code == 0 and failure is None:
        return _completed(request, job, attempt)
    return _failed(ending, failure, job, attempt, has_gpu=request.resources.gpu > 0)


def _completed(
    request: JobRequest, job: JobPaths, attempt: AttemptPaths
) -> tuple[JobState, Cause | None, Metrics | None]:
    if request.program:
        return _program_metrics(request, attempt, job)
    value = read_json(attempt.metrics)
    if value is None:
        return (
            JobState.FAILED,
            _no_result("no_metrics", "ended with exit code 0 but left no metrics", job, attempt),
            None,
        )
    try:
        metrics = METRICS.validate_python(value)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        cause = Cause(type="bad_metrics", message=f"metrics are not valid: {place}: {first['msg']}", exit_code=0)
        return JobState.FAILED, cause, None
    if isinstance(metrics, TrainMetrics) and metrics.diverged_at_step is not None:
        message = f"diverged: no finite loss (NaN or infinity) from step {metrics.diverged_at_step} on"
        return JobState.FAILED, _no_result(DIVERGED, message, job, attempt, hint=DIVERGED_HINT), metrics
    return JobState.COMPLETED, None, metrics


def _no_result(kind: str, message: str, job: JobPaths, attempt: AttemptPaths, *, hint: str | None = None) -> Cause:
    log, lines = relative(attempt.log, job), log_tail(attempt.log)
    return Cause(type=kind, message=message, exit_code=0, hint=hint, log=log, lines=lines)


def _program_metrics(
    request: JobRequest, attempt: AttemptPaths, job: JobPaths
) -> tuple[JobState, Cause | None, Metrics | None]:
    """Build a program's metrics from the file that HPCBENCH_METRICS named; training may write none."""
    try:
        figures = read_figures(attempt.values) or Figures()
    except RecordError as error:
        return JobState.FAILED, _no_result("bad_metrics", error.message, job, attempt, hint=error.hint), None
    if request.cmd == "eval":
        return _program_scores(request, figures)
    output = output_model(request, attempt)
    folder = None if output is None else str(output)
    return JobState.COMPLETED, None, CommandMetrics(values=figures.values, unknown=figures.unknown, output_model=folder)


def _program_scores(request: JobRequest, figures: Figures) -> tuple[JobState, Cause | None, Metrics | None]:
    """Build the metrics of an eval program: its numbers, the first of which is the one that the report shows."""
    unknown = dict(figures.unknown)
    scores: dict[str, float | str | None] = {}
    for name, value in figures.values.items():
        if isinstance(value, str | bool):
            unknown[name] = "not a number, as an eval's figures are"
        else:
            scores[name] = value
    count = scores.pop("num_samples", None)
    if isinstance(count, float) and (count < 0 or count != int(count)):
        unknown["num_samples"] = f"reported as {count:g}, which counts nothing"
        count = None
    if all(value is None for value in scores.values()):
        message = 'the eval program wrote no {"metric": number} to the file named by HPCBENCH_METRICS'
        reasons = name_first([f"{name}: {reason}" for name, reason in unknown.items()], separator="; ")
        message += f" ({reasons})" if reasons else ""
        return JobState.FAILED, Cause(type="no_metrics", message=message, exit_code=0), None
    name = request.eval_dataset or "command"
    names = [key for key in scores if not key.endswith("_stderr")]
    # A program may write its settings beside its scores, nested: those have a dot.
    primary = next((key for key in names if "." not in key), next(iter(names), None))
    if primary is not None and scores[primary] is None:
        unknown["primary_metric"] = f"{primary} was {unknown[primary]}"
    metrics = EvalMetrics(
        dataset=name,
        primary_task=name,
        primary_metric=primary,
        tasks={name: TaskResult(metrics=scores, num_samples=int(count) if isinstance(count, float) else 0)},
        checkpoint_choice="baseline" if request.train_folder is None else "output_model",
        unknown=unknown,
    )
    return JobState.COMPLETED, None, metrics


def output_model(request: JobRequest, attempt: AttemptPaths) -> Path | None:
    """Return the absolute folder of the model that a command leaves behind, or None."""
    if request.command is None or request.command.output_model is None:
        return None
    base = Path(request.command.cwd) if request.command.cwd else attempt.folder
    return (base / request.command.output_model).absolute()


def _interrupted(
    ending: Ending, attempt: AttemptPaths, job: JobPaths, *, is_program: bool
) -> tuple[JobState, Cause | None, Metrics | None]:
    state, words = INTERRUPTIONS[ending.stop_reason or "terminate"]
    left = Interrupted.read(attempt.interrupted)
    has_saved = left is not None and left.step is not None
    saved = f"; checkpoint at step {left.step}" if left is not None and has_saved else "; no checkpoint was made"
    if is_program:
        # A program's checkpoints are its own affair, so none is claimed here.
        code = ending.exit_code
        how = "had to be killed" if ending.killed_by_us else "left at TERM"
        saved = f"; the program {how}" + (f" with exit code {code}" if code > 0 and not ending.killed_by_us else "")
    cause = Cause(
        type="interrupted",
        message=words + saved,
        exit_code=ending.exit_code if ending.exit_code >= 0 else None,
        signal=-ending.exit_code if ending.exit_code < 0 else None,
        hint=NO_REQUEUE_HINT if state in COMES_BACK and not ending.may_requeue else None,
        log=relative(attempt.log, job),
    )
    return state, cause, None


def _failed(
    ending: Ending, failure: Failure | None, job: JobPaths, attempt: AttemptPaths, *, has_gpu: bool
) -> tuple[JobState, Cause | None, Metrics | None]:
    lines = log_tail(attempt.log)
    state, cause = _judge(ending, failure, lines, has_gpu=has_gpu)
    code = ending.exit_code
    place = {"log": relative(attempt.log, job), "lines": lines, "exit_code": code if code >= 0 else None}
    return state, cause.model_copy(update=place), None


def _judge(  # noqa: PLR0911  # one rule a return
    ending: Ending, failure: Failure | None, lines: Sequence[str], *, has_gpu: bool
) -> tuple[JobState, Cause]:
    """Return what failed: a named cause goes before its consequences, and a message before a bare number."""
    kind = "" if failure is None else failure.type
    message = "" if failure is None else failure.message or kind
    hint = None if failure is None else failure.hint or None
    if kind in OUT_OF_MEMORY_TYPES or GPU_OOM_TEXT.search(message):
        return JobState.OUT_OF_MEMORY, Cause(type=kind, message=message, hint=hint)
    if failure is None and (line := _find_line(GPU_OOM_TEXT, lines)):
        return JobState.OUT_OF_MEMORY, Cause(type="OutOfMemoryError", message=line)
    number = _signal_number(ending, lines)
    if ending.oom_kills > 0:
        # Of several ranks the others report a lost connection, which is a consequence.
        text = "killed because the node's memory was not enough"
        return JobState.HOST_OUT_OF_MEMORY, Cause(
            type="host_out_of_memory", message=text, signal=number, hint=MORE_MEMORY
        )
    if kind in HOST_OOM_TYPES or HOST_OOM_TEXT.search(message):
        text = f"the node's memory was not enough: {message}"
        return JobState.HOST_OUT_OF_MEMORY, Cause(type=kind, message=text, hint=hint or MORE_MEMORY)
    # A failure's message goes before the rest of the log.
    if clue := find_cause((message,) if failure is not None else lines, has_gpu=has_gpu):
        return JobState.FAILED, Cause(type=clue.type, message=clue.message, hint=clue.hint)
    if ending.disk_full:
        text = "the disk is full, or a quota is used up: the log's last words are lost"
        return JobState.FAILED, Cause(type=DISK_FULL, message=text, hint=free_space())
    if failure is not None:
        return JobState.FAILED, Cause(type=kind, message=message, hint=hint)
    if line := _find_line(HOST_OOM_TEXT, lines):
        text = f"the node's memory was not enough: {line}"
        return JobState.HOST_OUT_OF_MEMORY, Cause(type="host_out_of_memory", message=text, hint=MORE_MEMORY)
    if number is not None:
        name = _signal_name(number)
        return JobState.FAILED, Cause(
            type="signal", message=f"killed by {name}", signal=number, hint=SIGNAL_HINTS.get(name)
        )
    return JobState.FAILED, Cause(type="exit_code", message=f"exit code {ending.exit_code}")


def _find_line(pattern: re.Pattern[str], lines: Sequence[str]) -> str | None:
    return next((line.strip() for line in lines if pattern.search(line)), None)


def _signal_number(ending: Ending, lines: Sequence[str]) -> int | None:
    """Return the signal that ended the program, or one of its ranks, by torchrun's message."""
    code = ending.exit_code
    if code < 0 or SHELL_SIGNALS < code <= SHELL_SIGNALS + signal.SIGRTMAX:
        return -code if code < 0 else code - SHELL_SIGNALS
    told = next((int(match[1]) for line in lines if (match := TORCHRUN_SIGNAL.search(line))), None)
    return told if code != 0 else None


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def first_failure(attempt: AttemptPaths) -> Failure | None:
    """Return the failure that explains the others: an out-of-memory one, else the earliest of all ranks."""
    found = [note for file in attempt.failures() if (note := Failure.read(file)) is not None]

    def order(note: Failure) -> tuple[bool, datetime]:
        return note.type not in OUT_OF_MEMORY_TYPES, parse_moment(note.at) or LONG_AGO

    return min(found, key=order, default=None)


def relative(path: Path, job: JobPaths) -> str:
    """Return a path relative to the job's folder, as records keep it."""
    return path.relative_to(job.folder).as_posix()
