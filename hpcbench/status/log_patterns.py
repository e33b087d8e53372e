"""Find in a log what a record cannot state: full disks, broken nodes, wrong setups. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from hpcbench.invocation import quoted
from hpcbench.schemas.record import BAD_NODE, DISK_FULL, SETUP_FAILED
from hpcbench.schemas.states import JobState


def free_space() -> str:
    """Return the hint for a full disk."""
    return f"free space there ({quoted('clean')} deletes checkpoints that are no longer needed), then retry"


_PROFILE = "fix `setup` or `python` in the cluster profile; hpcbench doctor checks both with a tiny job"


@dataclass(frozen=True, slots=True, kw_only=True)
class LogCause:
    """A cause that a log line shows."""

    type: str
    """The record's `cause.type`."""
    summary: str
    hint: str | None
    line: str
    state: JobState | None = None
    """The state that it proves, where that is another than FAILED."""

    @property
    def message(self) -> str:
        """The cause, and the line that shows it."""
        return f"{self.summary}: {self.line}"


_PREFIX = re.compile(r"^(\S*/(?=slurm_script: )|slurmstepd\S*: error: |\d{4}-\d\d-\d\d \S+ [A-Z]+ [\w.]+: )")
"""What Slurm and our own logging put before a message."""


@dataclass(frozen=True, slots=True)
class _Pattern:
    type: str
    text: re.Pattern[str]
    summary: str
    hint: str | Callable[[], str] | None = None
    states: frozenset[JobState] = frozenset({JobState.FAILED, JobState.LOST})
    """States without a record that it may explain."""
    proves: JobState | None = None


_ANY_PROGRAM = (
    # ENOSPC and EDQUOT as libc, Python and Rust (safetensors) spell them.
    _Pattern(
        DISK_FULL,
        re.compile(r"No space left on device|Disk quota exceeded|StorageFull|QuotaExceeded"),
        "the disk is full, or a quota is used up",
        free_space,
    ),
)

_ANY_GPU_PROGRAM = (
    # Messages of the CUDA runtime and the NVIDIA driver about a broken GPU or driver, whatever runs on it.
    _Pattern(
        BAD_NODE,
        re.compile(
            r"uncorrectable (NVLink |ECC )?error|GPU is lost|fallen off the bus|no CUDA-capable device is detected"
            r"|Unable to determine the device handle|CUDA driver initialization failed"
            r"|couldn't communicate with the NVIDIA driver"
        ),
        "the node's GPU or its driver is broken",
        "run it on another node, and report the node to the administrators",
    ),
)

_NO_RECORD = (
    _Pattern(
        "host_out_of_memory",
        re.compile(r"oom[-_ ]kill event|[Ee]xceeded (job |step )?memory limit|OUT OF MEMORY"),
        "the node's memory was not enough",
        "ask for more mem_gb",
        # Slurm may report a job whose step was killed for memory as FAILED only (seen on 22.05).
        frozenset({JobState.HOST_OUT_OF_MEMORY, JobState.FAILED, JobState.LOST}),
        JobState.HOST_OUT_OF_MEMORY,
    ),
    _Pattern(
        "node_failed",
        re.compile(r"DUE TO NODE FAILURE"),
        "its node failed",
        "Slurm did not requeue it (requeue: false in the profile, or not allowed)",
        frozenset({JobState.NODE_FAILED, JobState.FAILED, JobState.LOST}),
        JobState.NODE_FAILED,
    ),
    _Pattern(
        "folder_removed",
        re.compile(r": no valid (job request|submission)$"),
        "a file that the job needs was removed, or cannot be read on its node",
        "submit the suite again, which writes it anew; find out what removes files there",
    ),
    _Pattern(
        "no_package",
        re.compile(r"(?P<shown>No module named [^)]+)"),
        "the job's Python lacks hpcbench or something it needs",
        _PROFILE,
    ),
    _Pattern(
        "no_python",
        re.compile(r"execve\(\): .*(No such file or directory|Permission denied)"),
        "the job's Python cannot be started on the node",
        _PROFILE,
    ),
    _Pattern(
        SETUP_FAILED,
        re.compile(
            r"slurm_script: (line \d+: )?.*(command not found|No such file or directory|Permission denied)"
            r"|Unable to locate a modulefile|unknown module|EnvironmentNameNotFound|EnvironmentLocationNotFound"
        ),
        "a setup line of the cluster profile failed",
        _PROFILE,
    ),
)

_SETUP_LINE = _Pattern(
    SETUP_FAILED,
    re.compile(r"hpcbench: setup line failed (?P<shown>\(exit code \d+\): .*)"),
    "a setup line of the cluster profile failed",
    _PROFILE,
)
"""Where nothing else is found: many a line fails without harm."""


def find_cause(lines: Sequence[str], *, has_gpu: bool) -> LogCause | None:
    """Return the cause that the log of a failed program shows; `has_gpu` is whether the job asked for one."""
    return _search(lines, _any_program(has_gpu=has_gpu))


def find_cause_without_record(state: JobState, lines: Sequence[str], *, has_gpu: bool) -> LogCause | None:
    """Return the cause that Slurm's own log shows for a job in this state that left no record."""
    known = [p for p in (*_any_program(has_gpu=has_gpu), *_NO_RECORD) if state in p.states]
    return _search(lines, known) or (_search(lines, [_SETUP_LINE]) if state in _SETUP_LINE.states else None)


def _any_program(*, has_gpu: bool) -> tuple[_Pattern, ...]:
    # torch warns of a missing driver on CPU nodes too.
    return (*_ANY_PROGRAM, *_ANY_GPU_PROGRAM) if has_gpu else _ANY_PROGRAM


def _search(lines: Sequence[str], patterns: Sequence[_Pattern]) -> LogCause | None:
    """Return the earliest match: later lines are often only its consequence."""
    for line in lines:
        for pattern in patterns:
            if match := pattern.text.search(line):
                shown = match.groupdict().get("shown") or _PREFIX.sub("", line.strip())
                hint = pattern.hint() if callable(pattern.hint) else pattern.hint
                return LogCause(type=pattern.type, summary=pattern.summary, hint=hint, line=shown, state=pattern.proves)
    return None
