"""Peak memory of an experiment, in GiB per rank or GPU; as in SWIFT 2.x, memory of evals is never counted."""

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
    """Peak memory per rank, or per GPU where one rank has several or where it was seen from outside."""

    source: Source
    peaks_gib: tuple[float, ...]
    """Never empty."""
    one_model: bool = False
    """Whether the peaks are those of the GPUs that hold the parts of one model."""

    @property
    def is_shared_out(self) -> bool:
        """Whether the parts of one model lie on several GPUs."""
        return self.one_model and len(self.peaks_gib) > 1


def memory_of(facts: Facts) -> Memory | None:
    """Return the training's peak: what torch reserved, else what NVML saw, else resident host memory."""
    if facts.train is not None:
        ranks = sorted(facts.train.memory, key=lambda memory: memory.rank)
        reserved = tuple(memory.reserved_gib for memory in ranks if memory.reserved_gib is not None)
        if len(reserved) == 1 and ranks[0].reserved_gib_by_gpu:
            return Memory("cuda", ranks[0].reserved_gib_by_gpu, one_model=True)
        if reserved:
            return Memory("cuda", reserved)
        resident = tuple(memory.host_rss_gib for memory in ranks if memory.host_rss_gib is not None)
        if resident:
            return Memory("host", resident)
    if (facts.train is None and facts.command is None) or facts.view.main is None or facts.view.main.record is None:
        return None
    return _sampled(facts.view.main.record)


def memory_text(facts: Facts) -> str:
    """Return GiB: `27.74`, `35.65 x2`, `73.71+78.54` or `35.10-35.65 x4`, marked where it is not torch's."""
    memory = memory_of(facts)
    if memory is None:
        return ""
    printed = [f"{peak:.2f}" for peak in memory.peaks_gib]
    if memory.is_shared_out:
        text = "+".join(printed)
    elif len(set(printed)) == 1:
        text = printed[0] + (f" x{len(printed)}" if len(printed) > 1 else "")
    elif len(printed) <= _FEW:
        text = "+".join(printed)
    else:
        text = f"{min(memory.peaks_gib):.2f}-{max(memory.peaks_gib):.2f} x{len(printed)}"
    return text + MARKS[memory.source]


def memory_brief(facts: Facts) -> str:
    """Return `35.65 x2`: the largest peak in GiB, the number of ranks, the source; `78.54 of 2` of one model's GPUs."""
    memory = memory_of(facts)
    if memory is None:
        return ""
    count = len(memory.peaks_gib)
    sign = "of " if memory.is_shared_out else "x"
    return f"{max(memory.peaks_gib):.2f}" + (f" {sign}{count}" if count > 1 else "") + MARKS[memory.source]


def swift_memory_text(facts: Facts) -> str:
    """Return `27.74GiB`, `35.65GiB*2` for two ranks, or `73.71+78.54GiB` for one model on two GPUs."""
    memory = memory_of(facts)
    if memory is None:
        return ""
    if memory.is_shared_out:
        return f"{'+'.join(f'{peak:.2f}' for peak in memory.peaks_gib)}GiB{MARKS[memory.source]}"
    printed = [f"{peak:.2f}GiB" for peak in memory.peaks_gib]
    alike = len(printed) > 1 and len(set(printed)) == 1
    return (f"{printed[0]}*{len(printed)}" if alike else "/".join(printed)) + MARKS[memory.source]


def memory_mark(facts: Facts) -> str:
    """Return the mark of the source, to follow a mean over repeats."""
    memory = memory_of(facts)
    return "" if memory is None else MARKS[memory.source]


def swift_memory_mark(facts: Facts) -> str:
    """Return unit and source, to follow a mean over repeats."""
    return f"GiB{memory_mark(facts)}"


def _sampled(record: Record) -> Memory | None:
    samples = [attempt.sampled for attempt in record.attempts if attempt.sampled is not None]
    if not samples:
        return None
    last = samples[-1]
    if last.gpu_peak_gib:
        return Memory("nvml", last.gpu_peak_gib)
    return None if last.host_rss_peak_gib is None else Memory("host", (last.host_rss_peak_gib,))
