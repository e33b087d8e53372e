"""Peak memory of an experiment, in GiB per rank; as in SWIFT 2.x, memory of evals is never counted."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from hpcbench.report.facts import Facts
from hpcbench.schemas.record import Record

Source = Literal["cuda", "nvml", "host"]
MARKS: Mapping[Source, str] = {"cuda": "", "nvml": " (nvml)", "host": " (host)"}
_FEW = 2
"""So many different peaks are joined with `+`, as in SWIFT 2.x; more become a range."""


@dataclass(frozen=True, slots=True)
class Memory:
    """Peak memory per rank (or per GPU, seen from outside)."""

    source: Source
    peaks_gib: tuple[float, ...]
    """Never empty."""


def memory_of(facts: Facts) -> Memory | None:
    """Return the training's peak: what torch reserved, else what NVML saw, else resident host memory."""
    if facts.train is not None:
        ranks = sorted(facts.train.memory, key=lambda memory: memory.rank)
        reserved = tuple(memory.reserved_gib for memory in ranks if memory.reserved_gib is not None)
        if reserved:
            return Memory("cuda", reserved)
        resident = tuple(memory.host_rss_gib for memory in ranks if memory.host_rss_gib is not None)
        if resident:
            return Memory("host", resident)
    if (facts.train is None and facts.command is None) or facts.view.train is None or facts.view.train.record is None:
        return None
    return _sampled(facts.view.train.record)


def memory_text(facts: Facts) -> str:
    """Return `27.74GiB`, `35.65GiB x2`, `73.71+78.54GiB` or `35.10-35.65GiB x4`, marked where it is not torch's."""
    memory = memory_of(facts)
    if memory is None:
        return ""
    printed = [f"{peak:.2f}" for peak in memory.peaks_gib]
    if len(set(printed)) == 1:
        text = f"{printed[0]}GiB" + (f" x{len(printed)}" if len(printed) > 1 else "")
    elif len(printed) <= _FEW:
        text = f"{'+'.join(printed)}GiB"
    else:
        text = f"{min(memory.peaks_gib):.2f}-{max(memory.peaks_gib):.2f}GiB x{len(printed)}"
    return text + MARKS[memory.source]


def memory_brief(facts: Facts) -> str:
    """Return `35.65 x2`: the largest peak in GiB, the number of ranks, the source."""
    memory = memory_of(facts)
    if memory is None:
        return ""
    count = len(memory.peaks_gib)
    return f"{max(memory.peaks_gib):.2f}" + (f" x{count}" if count > 1 else "") + MARKS[memory.source]


def memory_mark(facts: Facts) -> str:
    """Return unit and source, to follow a mean over repeats."""
    memory = memory_of(facts)
    return "GiB" + ("" if memory is None else MARKS[memory.source])


def _sampled(record: Record) -> Memory | None:
    samples = [attempt.sampled for attempt in record.attempts if attempt.sampled is not None]
    if not samples:
        return None
    last = samples[-1]
    if last.gpu_peak_gib:
        return Memory("nvml", last.gpu_peak_gib)
    return None if last.host_rss_peak_gib is None else Memory("host", (last.host_rss_peak_gib,))
