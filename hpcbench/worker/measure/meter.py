"""Measures a training from inside: time and work of each optimizer step, peak memory of each rank.

In: calls at the borders of steps. Out: plain numbers. Costs one device synchronisation per optimizer step and, with
several ranks, one tiny reduction; evaluation, saving and logging lie outside the steps and are never timed.
"""

from __future__ import annotations

import os
import resource
import time
from dataclasses import dataclass
from pathlib import Path

import torch

from hpcbench.processes import read_stat
from hpcbench.schemas.record import GIB, RankMemory
from hpcbench.worker.ranks import ALONE, Ranks


@dataclass(frozen=True, slots=True)
class StepMeasure:
    """One optimizer step over all ranks."""

    step_time_s: float
    num_tokens: int
    num_samples: int
    stop: bool
    """Whether rank 0 wants to stop after this step."""


class Meter:
    """Counts and times optimizer steps.

    Args:
        device: synchronised before the clock is read when it is a GPU.
        ranks: the processes that the counts are summed over.
    """

    def __init__(self, device: torch.device, ranks: Ranks = ALONE) -> None:
        self._device = device
        self._ranks = ranks
        self._began_at = time.perf_counter()
        self._num_tokens = 0
        self._num_samples = 0

    def begin_step(self) -> None:
        """Start the clock; the step's own data loading is part of it."""
        self._began_at = time.perf_counter()
        self._num_tokens = self._num_samples = 0

    def count_batch(self, *, num_tokens: int, num_samples: int) -> None:
        """Add one forward pass: non-padding input tokens, source samples."""
        self._num_tokens += num_tokens
        self._num_samples += num_samples

    def end_step(self, *, stop: bool) -> StepMeasure:
        """Stop the clock and sum over ranks; `stop` counts on rank 0, which decides for all."""
        if self._device.type == "cuda":
            torch.cuda.synchronize()
        counts = torch.tensor([int(stop), self._num_tokens, self._num_samples], dtype=torch.int64)
        num_stops, num_tokens, num_samples = self._ranks.sum(counts, self._device).tolist()
        return StepMeasure(
            step_time_s=time.perf_counter() - self._began_at,
            num_tokens=num_tokens,
            num_samples=num_samples,
            stop=num_stops > 0,
        )


def reset_peaks() -> None:
    """Forget the GPU memory peaks so far (of loading)."""
    if torch.cuda.is_available():
        for index in range(torch.cuda.device_count()):
            torch.cuda.reset_peak_memory_stats(index)


def measure_memory(device: torch.device, *, num_gpus: int, ranks: Ranks = ALONE) -> tuple[RankMemory, ...]:
    """Return every rank's peaks, in order of ranks; all ranks must call it."""
    return tuple(ranks.gather(_measure_own_memory(device, rank=ranks.rank, num_gpus=num_gpus)))


def process_started_at() -> float:
    """Return when this process started, in seconds since the epoch."""
    stat = read_stat(os.getpid())
    if stat is None:
        return time.time()
    uptime_s = float(Path("/proc/uptime").read_text(encoding="utf-8").split()[0])
    age_s = uptime_s - stat.start_ticks / os.sysconf("SC_CLK_TCK")
    return time.time() - age_s


def _measure_own_memory(device: torch.device, *, rank: int, num_gpus: int) -> RankMemory:
    # Linux counts ru_maxrss in KiB, see getrusage(2).
    host_rss_gib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / GIB
    if device.type != "cuda":
        return RankMemory(rank=rank, host_rss_gib=host_rss_gib)
    indices = range(torch.cuda.device_count()) if num_gpus > 1 else [torch.cuda.current_device()]
    return RankMemory(
        rank=rank,
        reserved_gib=sum(torch.cuda.max_memory_reserved(index) for index in indices) / GIB,
        allocated_gib=sum(torch.cuda.max_memory_allocated(index) for index in indices) / GIB,
        host_rss_gib=host_rss_gib,
    )
