"""The one table from Slurm's states to hpcbench's, and the parsers of squeue and sacct.

Pure. A word that is not in the table is alive ("unknown"), never dead. Source: JOB STATE CODES of squeue(1), sacct(1).
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from hpcbench.schemas.states import JobState

logger = logging.getLogger(__name__)

SLURM_STATES = {
    "BOOT_FAIL": JobState.NODE_FAILED,
    "CANCELLED": JobState.CANCELLED,
    "COMPLETED": JobState.COMPLETED,
    "COMPLETING": JobState.RUNNING,
    "CONFIGURING": JobState.RUNNING,
    "DEADLINE": JobState.TIMEOUT,
    "FAILED": JobState.FAILED,
    "LAUNCH_FAILED": JobState.FAILED,
    "NODE_FAIL": JobState.NODE_FAILED,
    "OUT_OF_MEMORY": JobState.HOST_OUT_OF_MEMORY,
    "PENDING": JobState.PENDING,
    "POWER_UP_NODE": JobState.RUNNING,
    "PREEMPTED": JobState.PREEMPTED,
    "RECONFIG_FAIL": JobState.NODE_FAILED,
    "REQUEUED": JobState.PENDING,  # sacct's word for an attempt that comes back, so it is alive
    "REQUEUE_FED": JobState.PENDING,
    "REQUEUE_HOLD": JobState.PENDING,
    "RESIZING": JobState.RUNNING,
    "RESV_DEL_HOLD": JobState.PENDING,
    "REVOKED": JobState.CANCELLED,
    "RUNNING": JobState.RUNNING,
    "SIGNALING": JobState.RUNNING,
    "SPECIAL_EXIT": JobState.PENDING,
    "STAGE_OUT": JobState.RUNNING,
    "STOPPED": JobState.RUNNING,
    "SUSPENDED": JobState.RUNNING,
    "TIMEOUT": JobState.TIMEOUT,
    "UPDATE_DB": JobState.RUNNING,
}

SQUEUE_FORMAT = "%i|%F|%K|%T|%S|%r|%E|%j"
SACCT_FORMAT = "JobID,State,ExitCode,JobName"
RANGES_PER_WORD = 500  # an argument of a command may be no longer than 128 KiB; so many were tried on 22.05
SQUEUE_CELLS = SQUEUE_FORMAT.count("|") + 1
SACCT_CELLS = SACCT_FORMAT.count(",") + 1


@dataclass(frozen=True, slots=True, kw_only=True)
class SlurmRow:
    """One job or array element as a Slurm command showed it."""

    job_id: str  # base id: the array's id for elements
    index: int | None
    name: str
    raw_state: str
    reason: str = ""
    has_dependency: bool = False  # just after the submission the reason does not say so yet
    expected_start: str | None = None
    exit_code: str | None = None

    @property
    def state(self) -> JobState:
        """The state in hpcbench's words."""
        return translate_state(self.raw_state)


def translate_state(word: str) -> JobState:
    """Return the state for Slurm's word (`CANCELLED by 1000` and `NODE_FAIL+` included)."""
    first = word.strip().split(" ", 1)[0].rstrip("+")
    state = SLURM_STATES.get(first)
    if state is None:
        logger.warning("Slurm state %r is not known; the job is taken to be alive", word)
        return JobState.UNKNOWN
    return state


def parse_squeue(text: str) -> Iterator[SlurmRow]:
    """Yield the rows of `squeue -r -h -o SQUEUE_FORMAT`; lines of another shape (banners) are skipped."""
    for line in text.splitlines():
        cells = line.split("|", SQUEUE_CELLS - 1)  # the name comes last: it may hold a bar
        if len(cells) != SQUEUE_CELLS or not cells[1].isdecimal():
            continue
        _, base, index, state, start, reason, dependency, name = cells
        for number in parse_indices(index):
            yield SlurmRow(
                job_id=base,
                index=number,
                name=name,
                raw_state=state,
                reason=reason,
                has_dependency=dependency not in {"", "(null)"},
                expected_start=None if start in {"N/A", ""} else start,
            )


def parse_sacct(text: str) -> Iterator[SlurmRow]:
    """Yield the rows of `sacct -X -n -P -o SACCT_FORMAT`; unsplit arrays (`712_[0-3]`) yield each element."""
    for line in text.splitlines():
        cells = line.split("|", SACCT_CELLS - 1)
        if len(cells) != SACCT_CELLS:
            continue
        identity, state, exit_code, name = cells
        base, _, index = identity.partition("_")
        if not base.isdecimal():
            continue
        for number in parse_indices(index):
            yield SlurmRow(job_id=base, index=number, name=name, raw_state=state, exit_code=exit_code)


def parse_indices(text: str) -> list[int | None]:
    """Return the indices in Slurm's array expression, cut short (`...`) or not: `7`, `[0-3,9%2]`; none for one job."""
    word = text.strip().strip("[]").split("%", 1)[0]
    if word in {"", "N/A", "None"}:
        return [None]
    found: list[int | None] = []
    for part in word.split(","):
        bounds, _, step = part.partition(":")
        first, _, last = bounds.partition("-")
        if first.isdecimal() and (last.isdecimal() or not last):
            found.extend(range(int(first), int(last or first) + 1, int(step) if step.isdecimal() and int(step) else 1))
    return found or [None]


def compress_indices(indices: list[int]) -> str:
    """Return sorted array indices in Slurm's notation: [0, 1, 2, 7] is `0-2,7`."""
    parts: list[str] = []
    start = previous = indices[0]
    for index in [*indices[1:], -1]:
        if index == previous + 1:
            previous = index
            continue
        parts.append(str(start) if start == previous else f"{start}-{previous}")
        start = previous = index
    return ",".join(parts)


def group_elements(element_ids: Sequence[str]) -> list[str]:
    """Return job ids with the elements of an array as one word, which slurmctld takes as one message (pure).

    >>> group_elements(["7_0", "7_2", "7_1", "9", "7_5"])
    ['7_[0-2,5]', '9']
    """
    indices: dict[str, list[int]] = {}
    words: dict[str, None] = {}
    for element_id in element_ids:
        base, sign, index = element_id.partition("_")
        if sign and index.isdecimal():
            indices.setdefault(base, []).append(int(index))
        words[base if sign and index.isdecimal() else element_id] = None
    return [word for base in words for word in _array_words(base, sorted(set(indices.get(base, ()))))]


def _array_words(base: str, indices: list[int]) -> list[str]:
    if not indices:
        return [base]
    parts = compress_indices(indices).split(",")
    starts = range(0, len(parts), RANGES_PER_WORD)
    return [f"{base}_[{','.join(parts[start : start + RANGES_PER_WORD])}]" for start in starts]
