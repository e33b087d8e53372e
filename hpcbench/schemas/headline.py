"""The main figures of a finished job, in a few words.

In: a job's record. Out: `train_loss 0.4855, eval_loss 0.02753`, or an eval's primary metric. Every line that tells of
a job that is over has them from here; all figures stand in the report.
"""

from __future__ import annotations

from typing import TypeGuard

from hpcbench.schemas.metrics import CommandMetrics, EvalMetrics, ExportMetrics, InferMetrics, TrainMetrics
from hpcbench.schemas.record import Record

MAX_VALUES = 2
"""How many of a program's own figures are shown."""


def headline(record: Record | None) -> str:
    """Return a record's main figures, nothing where it has none."""
    figures: dict[str, object] = {}
    if record is None:
        return ""
    match record.metrics:
        case TrainMetrics() as train:
            figures = {"train_loss": train.train_loss, "eval_loss": train.eval_loss}
        case EvalMetrics() as evaluated:
            task = evaluated.tasks.get(evaluated.primary_task)
            # lm-eval names the filter behind the metric, `none` where there is none.
            if task is not None and (metric := evaluated.primary_metric) is not None:
                figures = {metric.removesuffix(",none"): task.metrics.get(metric)}
        case CommandMetrics() as program:
            numbers = {name: value for name, value in sorted(program.values.items()) if _is_number(value)}
            figures = dict(list(numbers.items())[:MAX_VALUES])
        case InferMetrics() as answered:
            speed = None if answered.infer is None else answered.infer.tokens_per_second
            figures = {"num_rows": answered.num_rows, "tokens_per_second": speed, "rouge_l": answered.rouge_l}
        case ExportMetrics() | None:
            pass
    return ", ".join(f"{name} {value:.4g}" for name, value in figures.items() if _is_number(value))


def _is_number(value: object) -> TypeGuard[int | float]:
    return isinstance(value, int | float) and not isinstance(value, bool)
