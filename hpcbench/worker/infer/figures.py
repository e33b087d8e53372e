"""The figures of an infer job, out of its results alone: those of all attempts count (pure).

In: result rows. Out: speeds, percentiles of latency, scores against the labels.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from statistics import fmean

from hpcbench.schemas.metrics import InferSpeed, Latency
from hpcbench.worker.infer.results import ResultRow
from hpcbench.worker.measure.formulas import percentile
from hpcbench.worker.measure.rouge import rouge_l


def infer_speed(rows: Sequence[ResultRow], *, batch_size: int) -> InferSpeed | None:
    """Return the speed over all batches, None where nothing was generated.

    A batch takes as long as its slowest row, and all of its rows get their first token together.
    """
    batches: defaultdict[int, list[ResultRow]] = defaultdict(list)
    for row in rows:
        batches[row.batch].append(row)
    time_s = sum(max(row.seconds for row in batch) for batch in batches.values())
    prefill_s = sum(max(row.first_token_seconds for row in batch) for batch in batches.values())
    num_tokens, num_prompt_tokens = sum(row.tokens for row in rows), sum(row.prompt_tokens for row in rows)
    if num_tokens == 0 or time_s <= 0:
        return None
    num_decoded, decode_s = num_tokens - sum(row.tokens > 0 for row in rows), time_s - prefill_s
    return InferSpeed(
        num_tokens=num_tokens,
        time_s=time_s,
        tokens_per_second=num_tokens / time_s,
        num_prompt_tokens=num_prompt_tokens,
        prefill_tokens_per_second=num_prompt_tokens / prefill_s if prefill_s > 0 else None,
        decode_tokens_per_second=num_decoded / decode_s if num_decoded > 0 and decode_s > 0 else None,
        batch_size=batch_size,
    )


def latency(values_s: Iterable[float]) -> Latency | None:
    """Return percentiles of seconds, None without any."""
    values = sorted(values_s)
    if not values:
        return None
    return Latency(p50_s=percentile(values, 50), p90_s=percentile(values, 90), p99_s=percentile(values, 99))


def mean_rouge(rows: Sequence[ResultRow]) -> float | None:
    """Return the mean ROUGE-L (0 to 1) against the labels, None where no row has one."""
    scores = [rouge_l(row.response, row.label) for row in rows if row.label is not None]
    return fmean(scores) if scores else None


def exact_match(rows: Sequence[ResultRow]) -> float | None:
    """Return the part of the rows whose answer is the label but for white space around it, None without labels."""
    scores = [row.response.strip() == row.label.strip() for row in rows if row.label is not None]
    return fmean(scores) if scores else None
