"""Arithmetic behind the figures of a record: speeds, percentiles, FLOPs per token, MFU; each formula names its source.

In: plain numbers and measured steps. Out: plain numbers, or None where a figure is not known.
It never touches disk, clock or torch, and never returns NaN or infinity.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from hpcbench.schemas.metrics import TokenStats

MAX_WARMUP_STEPS = 5
"""Steps left out of the steady figures at most, per attempt: compilation, allocator growth, clock ramp."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One optimizer step as the history has it; counts are over all ranks."""

    step: int
    loss: float | None
    step_time_s: float
    num_tokens: int
    num_samples: int
    attempt: int = 1


def divergence(steps: Sequence[Step]) -> int | None:
    """Return the first step from which on no loss was finite, or None for a training that ended with a finite one.

    A single loss that is not finite is not a divergence: with fp16 the gradient scaler leaves such a step out.
    """
    first: int | None = None
    for step in steps:
        if step.loss is not None:
            first = None
        elif first is None:
            first = step.step
    return first


@dataclass(frozen=True, slots=True, kw_only=True)
class Speed:
    """Training speed over all steps and over the steady ones."""

    num_samples: int
    num_tokens: int
    train_time_s: float
    samples_per_second: float | None
    tokens_per_second: float | None
    steady_samples_per_second: float | None
    steady_tokens_per_second: float | None
    num_warmup_steps_excluded: int
    step_time_median_s: float | None
    step_time_p10_s: float | None
    step_time_p90_s: float | None


def percentile(values: Sequence[float], pct: float) -> float | None:
    """Return the percentile by linear interpolation between the two nearest ranks, None for no values.

    Source: Hyndman and Fan 1996, type 7, numpy's default.

    Args:
        values: in any order.
        pct: 0 to 100.
    """
    if not values:
        return None
    ordered = sorted(values)
    position = (len(ordered) - 1) * pct / 100
    lower = math.floor(position)
    upper = min(lower + 1, len(ordered) - 1)
    return ordered[lower] + (ordered[upper] - ordered[lower]) * (position - lower)


def rate(amount: float, time_s: float) -> float | None:
    """Return amount per second, None when no time passed."""
    return amount / time_s if time_s > 0 else None


def count_warmup_steps(num_steps: int) -> int:
    """Return how many first steps of an attempt do not count as steady: at most five, at most a quarter."""
    return min(MAX_WARMUP_STEPS, num_steps // 4)


def drop_warmup(steps: Sequence[Step]) -> list[Step]:
    """Return the steps without each attempt's warm-up steps, in order."""
    kept: list[Step] = []
    for attempt in sorted({step.attempt for step in steps}):
        own = sorted((step for step in steps if step.attempt == attempt), key=lambda step: step.step)
        kept.extend(own[count_warmup_steps(len(own)) :])
    return kept


def summarise_speed(steps: Sequence[Step]) -> Speed:
    """Return totals, rates and step-time percentiles; percentiles are over the steady steps."""
    steady = drop_warmup(steps)
    time_s = math.fsum(step.step_time_s for step in steps)
    steady_time_s = math.fsum(step.step_time_s for step in steady)
    samples = sum(step.num_samples for step in steps)
    tokens = sum(step.num_tokens for step in steps)
    step_times_s = [step.step_time_s for step in steady]
    return Speed(
        num_samples=samples,
        num_tokens=tokens,
        train_time_s=time_s,
        samples_per_second=rate(samples, time_s),
        tokens_per_second=rate(tokens, time_s),
        steady_samples_per_second=rate(sum(step.num_samples for step in steady), steady_time_s),
        steady_tokens_per_second=rate(sum(step.num_tokens for step in steady), steady_time_s),
        num_warmup_steps_excluded=len(steps) - len(steady),
        step_time_median_s=percentile(step_times_s, 50),
        step_time_p10_s=percentile(step_times_s, 10),
        step_time_p90_s=percentile(step_times_s, 90),
    )


def mean_loss(steps: Sequence[Step]) -> float | None:
    """Return the plain mean of the steps' losses; None when there are no steps or one has no finite loss."""
    losses = [step.loss for step in steps if step.loss is not None]
    if not losses or len(losses) != len(steps):
        return None
    return math.fsum(losses) / len(losses)


def summarise_lengths(lengths: Sequence[int], *, num_truncated: int = 0, num_dropped: int = 0) -> TokenStats | None:
    """Return mean, population standard deviation, least and greatest length; None for no samples."""
    if not lengths:
        return None
    mean = sum(lengths) / len(lengths)
    variance = math.fsum((length - mean) ** 2 for length in lengths) / len(lengths)
    return TokenStats(
        mean=mean,
        std=math.sqrt(variance),
        min=min(lengths),
        max=max(lengths),
        num_samples=len(lengths),
        num_truncated=num_truncated,
        num_dropped=num_dropped,
    )


def mean_context_length(tokens: TokenStats) -> float:
    """Return the sample length that the average token sees: E[s^2] / E[s], from mean and standard deviation.

    Attention costs grow with the square of a sample's length, so long samples weigh more than in the plain mean.
    """
    return (tokens.std**2 + tokens.mean**2) / tokens.mean


def flops_per_token(
    *,
    num_trained: int,
    num_frozen: int,
    num_layers: int,
    attention_width: int,
    context_length: float,
    num_forward_only: int = 0,
    num_layers_forward_only: int = 0,
) -> float:
    """Return model FLOPs per trained token, recomputation by gradient checkpointing not counted.

    A matrix product with N weights costs 2N forward, 2N for the gradient of its input and 2N for the gradient of its
    weights: 6N when trained, 4N when frozen above trained weights, 2N when frozen below all of them, where no gradient
    comes. Attention adds 4 L h s forward and 8 L h s backward. Sources: Kaplan et al. 2020 (arXiv:2001.08361) section
    2.1 for 6N; Chowdhery et al. 2022 (arXiv:2204.02311) appendix B for 12 L h s.

    Args:
        num_trained: weights that take part in matrix products and get gradients.
        num_frozen: weights that only pass gradients on.
        num_layers: L.
        attention_width: h, query heads times head dimension.
        context_length: s, see `mean_context_length`.
        num_forward_only: weights that neither get gradients nor pass them on.
        num_layers_forward_only: of L, those whose attention passes no gradients on.
    """
    weights = 6 * num_trained + 4 * num_frozen + 2 * num_forward_only
    return weights + (12 * num_layers - 8 * num_layers_forward_only) * attention_width * context_length


def model_flops_utilisation(
    *, tokens_per_second_per_device: float | None, flops_per_token: float | None, peak_flops: float | None
) -> float | None:
    """Return achieved over peak FLOP/s of one device (arXiv:2204.02311 appendix B), None where a part is unknown."""
    if tokens_per_second_per_device is None or flops_per_token is None or not peak_flops:
        return None
    return tokens_per_second_per_device * flops_per_token / peak_flops


def latest_by_step(steps: Iterable[Step]) -> list[Step]:
    """Return one entry per step number, that of the latest attempt, in order."""
    chosen = {step.step: step for step in sorted(steps, key=lambda step: step.attempt)}
    return [chosen[number] for number in sorted(chosen)]
