"""Measures from inside: time and work of optimizer steps and of generations, peak memory of each rank.

In: calls at the borders of steps, what one `generate` call made, row by row. Out: plain numbers. A training pays one
device synchronisation per optimizer step and, with several ranks, one tiny reduction; evaluation, saving and logging
lie outside the steps and are never timed. It never chooses what is generated.

Shapes: B rows of a batch, P prompt tokens (left-padded), G generated tokens.
"""

from __future__ import annotations

import os
import resource
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedTokenizerBase, StoppingCriteria

from hpcbench.processes.process_tree import read_stat
from hpcbench.schemas.metrics import GIB, InferSpeed, RankMemory
from hpcbench.worker.ranks import ALONE, Ranks

LOOKBACK_MARGIN_TOKENS = 2
"""A stop sequence may be generated in other tokens than the tokenizer would choose; lm-eval searches as far back."""


@dataclass(frozen=True, slots=True)
class StepMeasure:
    """One optimizer step over all ranks."""

    step_time_s: float
    num_tokens: int
    num_samples: int
    stop: bool
    """Whether rank 0 wants to stop after this step."""


class Meter:
    """Counts and times optimizer steps."""

    def __init__(
        self, device: torch.device, ranks: Ranks = ALONE, *, clock: Callable[[], float] = time.perf_counter
    ) -> None:
        self._device = device
        self._ranks = ranks
        self._clock = clock
        self._began_at = clock()
        self._num_tokens = 0
        self._num_samples = 0

    def begin_step(self) -> None:
        """Start the clock; the step's own data loading is part of it."""
        self._began_at = self._clock()
        self._num_tokens = self._num_samples = 0

    def count_batch(self, *, num_tokens: int, num_samples: int) -> None:
        """Add one forward pass: non-padding input tokens, source samples."""
        self._num_tokens += num_tokens
        self._num_samples += num_samples

    def end_step(self, *, stop: bool) -> StepMeasure:
        """Stop the clock and sum over ranks; `stop` counts on rank 0, which decides for all."""
        if self._device.type == "cuda":
            # Kernels run after the calls that start them have returned.
            torch.cuda.synchronize()
        counts = torch.tensor([int(stop), self._num_tokens, self._num_samples], dtype=torch.int64)
        num_stops, num_tokens, num_samples = self._ranks.sum(counts, self._device).tolist()
        return StepMeasure(
            step_time_s=self._clock() - self._began_at,
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
    # start_ticks count from boot, see proc(5).
    uptime_s = float(Path("/proc/uptime").read_text(encoding="utf-8").split()[0])
    age_s = uptime_s - stat.start_ticks / os.sysconf("SC_CLK_TCK")
    return time.time() - age_s


def _measure_own_memory(device: torch.device, *, rank: int, num_gpus: int) -> RankMemory:
    # Linux counts ru_maxrss in KiB, see getrusage(2).
    host_rss_gib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / GIB
    if device.type != "cuda":
        return RankMemory(rank=rank, host_rss_gib=host_rss_gib)
    indices = range(torch.cuda.device_count()) if num_gpus > 1 else [torch.cuda.current_device()]
    reserved_gib = tuple(torch.cuda.max_memory_reserved(index) / GIB for index in indices)
    return RankMemory(
        rank=rank,
        reserved_gib=sum(reserved_gib),
        reserved_gib_by_gpu=reserved_gib if len(reserved_gib) > 1 else (),
        allocated_gib=sum(torch.cuda.max_memory_allocated(index) for index in indices) / GIB,
        host_rss_gib=host_rss_gib,
    )


class GenerationWatch(StoppingCriteria):
    """End each row at its own stop sequence, and note when the first token was there."""

    # lm-eval's criterion ends a batch only when all rows have hit the same stop sequence: the others go on producing
    # tokens that are thrown away, and would be counted here.

    def __init__(self, tokenizer: PreTrainedTokenizerBase, stop: Sequence[str], prompt_BP: torch.Tensor) -> None:  # noqa: N803
        self.stop = tuple(text for text in stop if text)
        self.tokenizer = tokenizer
        self.num_rows, self.prompt_length = prompt_BP.shape
        self.device = prompt_BP.device
        self.stopped_at: list[int | None] = [None] * self.num_rows
        """Generated tokens of each row up to and with its stop sequence."""
        longest = max((len(tokenizer.encode(text, add_special_tokens=False)) for text in self.stop), default=0)
        self.lookback = longest + LOOKBACK_MARGIN_TOKENS
        self.started_s = read_clock(self.device)
        self.first_token_s: float | None = None

    def __call__(self, input_ids: torch.Tensor, scores: Any, **kwargs: Any) -> torch.Tensor:  # noqa: ARG002
        """Return which rows are done, as a boolean tensor [B]."""
        if self.first_token_s is None:
            self.first_token_s = read_clock(self.device)
        generated = input_ids[:, self.prompt_length :]
        open_rows = [row for row, length in enumerate(self.stopped_at) if length is None]
        if self.stop and open_rows:
            texts = self.tokenizer.batch_decode(generated[open_rows, -self.lookback :])
            for row, text in zip(open_rows, texts, strict=True):
                if any(stop in text for stop in self.stop):
                    self.stopped_at[row] = generated.shape[1]
        return torch.tensor([length is not None for length in self.stopped_at], device=self.device)

    def count_tokens(self, output: torch.Tensor, eos_token_ids: Sequence[int]) -> list[int]:
        """Return the generated tokens by row of [B, P + G], end-of-sequence and stop included, without padding."""
        counts = []
        for row, stopped_at in zip(output[:, self.prompt_length :].tolist(), self.stopped_at, strict=True):
            ended_at = next((place + 1 for place, token in enumerate(row) if token in eos_token_ids), len(row))
            counts.append(ended_at if stopped_at is None else min(ended_at, stopped_at))
        return counts


@dataclass(slots=True)
class GenerationMeter:
    """Sums over all batches of one eval."""

    num_tokens: int = 0
    num_first_tokens: int = 0
    """Tokens that came out of a prefill: one per row."""
    num_prompt_tokens: int = 0
    time_s: float = 0.0
    prefill_time_s: float = 0.0

    def add(self, *, row_tokens: Sequence[int], num_prompt_tokens: int, time_s: float, prefill_time_s: float) -> None:
        """Count one batch.

        Args:
            row_tokens: generated tokens of each row.
            num_prompt_tokens: prompt tokens of all rows, without padding.
            time_s: from the start of the call until all rows were done.
            prefill_time_s: from the start of the call until the first token of each row.
        """
        self.num_tokens += sum(row_tokens)
        self.num_first_tokens += len(row_tokens)
        self.num_prompt_tokens += num_prompt_tokens
        self.time_s += time_s
        self.prefill_time_s += prefill_time_s

    @classmethod
    def over(cls, meters: Sequence[GenerationMeter]) -> GenerationMeter:
        """Return the sums over ranks that generated at the same time: all their tokens, the slowest rank's times."""
        slowest = max(meters, key=lambda meter: meter.time_s)
        return cls(
            num_tokens=sum(meter.num_tokens for meter in meters),
            num_first_tokens=sum(meter.num_first_tokens for meter in meters),
            num_prompt_tokens=sum(meter.num_prompt_tokens for meter in meters),
            time_s=slowest.time_s,
            prefill_time_s=slowest.prefill_time_s,
        )

    def speed(self, *, batch_size: int) -> InferSpeed | None:
        """Return the speed over all batches, or None when nothing was generated."""
        if self.num_tokens == 0 or self.time_s <= 0:
            return None
        num_decoded = self.num_tokens - self.num_first_tokens
        decode_time_s = self.time_s - self.prefill_time_s
        return InferSpeed(
            num_tokens=self.num_tokens,
            time_s=self.time_s,
            tokens_per_second=self.num_tokens / self.time_s,
            num_prompt_tokens=self.num_prompt_tokens,
            prefill_tokens_per_second=self.num_prompt_tokens / self.prefill_time_s if self.prefill_time_s > 0 else None,
            decode_tokens_per_second=num_decoded / decode_time_s if num_decoded > 0 and decode_time_s > 0 else None,
            batch_size=batch_size,
        )


def read_clock(device: torch.device) -> float:
    """Return a monotonic time in seconds after everything queued on the device is done."""
    if device.type == "cuda":  # its kernels run on after the call that started them
        torch.cuda.synchronize(device)
    return time.perf_counter()
