"""The one score of an eval that the report shows, why there is none, and what a reader of it has to know.

In: loaded tasks, lm-eval's results, prompts that were cut. Out: a metric's key, reasons and notices. A score is never
made up: where lm-eval defines none for a group and its tasks share no mean, there is none.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from lm_eval.api.group import Group
from lm_eval.api.task import Task

from hpcbench.errors import name_first, plural
from hpcbench.schemas.arguments import EvalArgs
from hpcbench.schemas.metrics import TaskResult
from hpcbench.worker.evaluate.task_checks import is_fixed_at_no_shots, may_show_its_own_answer, missing_metrics
from hpcbench.worker.evaluate.tasks import LoadedTasks, name_of

BYPASS = "bypass"
"""lm-eval's placeholder of tasks that only collect answers; its value, 999, is not a score."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Headline:
    """Which figure stands for the whole eval."""

    metric: str | None
    reason: str | None = None
    """Why there is no figure."""
    notices: tuple[str, ...] = field(default=())


def choose_headline(tasks: LoadedTasks, results: Mapping[str, TaskResult], eval_args: EvalArgs) -> Headline:
    """Return the headline of an eval, with what is to be said about it."""
    row = results.get(tasks.name)
    metric = primary_metric(tasks.headline, {} if row is None else row.metrics)
    notices = [notice for task in tasks.leaves if (notice := missing_metrics(task, _keys(results, task))) is not None]
    leaking = [str(task.task_name) for task in tasks.leaves if may_show_its_own_answer(task, eval_args.num_fewshot)]
    if leaking:
        notices.append(
            f"{name_first(leaking)}: examples come from the split that is evaluated, so that a question may be among "
            "its own; with `fewshot_split` in the task file lm-eval leaves it out"
        )
    fixed = [str(task.task_name) for task in tasks.leaves if is_fixed_at_no_shots(task)]
    if eval_args.num_fewshot and fixed:
        notices.append(f"{name_first(fixed)}: fixed at 0 shots, not {eval_args.num_fewshot}")
    if eval_args.gen_kwargs and all(task.OUTPUT_TYPE != "generate_until" for task in tasks.leaves):
        notices.append(f"{tasks.name}: gen_kwargs did nothing, since nothing is generated")
    if metric is None or row is None:
        return Headline(metric=None, reason=_reason(tasks, results), notices=tuple(notices))
    partial = _partly_measured(tasks, results, metric)
    notices += [] if partial is None else [partial]
    value = row.metrics.get(metric)
    reason = None if isinstance(value, int | float) else f"{metric} is not a finite number"
    return Headline(metric=metric, reason=reason, notices=tuple(notices))


def primary_metric(item: Task | Group, metrics: Mapping[str, object]) -> str | None:
    """Return the metric that the report shows: the first that the task lists, under its first filter.

    For gsm8k that is `exact_match,strict-match` (lm-eval lists it before `flexible-extract`), for multiple choice
    `acc,none`.
    """
    # lm-eval writes them metric by metric within a filter.
    keys = [key for key in metrics if "," in key and not key.split(",")[0].endswith("_stderr")]
    keys = [key for key in keys if key.split(",")[0] != BYPASS]
    first = next(iter(metric_names(item)), None)
    return next((key for key in keys if key.split(",")[0] == first), keys[0] if keys else None)


def metric_names(item: Task | Group) -> tuple[str, ...]:
    """Return the metrics that a task or group lists, in its order."""
    if isinstance(item, Group):
        return tuple(entry.metric for entry in item.aggregate_metric_list or ())
    return tuple(item.aggregation())


def _reason(tasks: LoadedTasks, results: Mapping[str, TaskResult]) -> str:
    """Return why no figure stands for the whole."""
    if not isinstance(tasks.headline, Group):
        only_answers = BYPASS in metric_names(tasks.headline)
        return "the task only collects answers" if only_answers else "the task reports no figure"
    count = plural(len(tasks.leaves), "task")
    if tasks.mean_over_documents:
        return f"lm-eval defines no score for this group, and its {count} have no mean in common"
    own = name_first(metric_names(tasks.headline))
    theirs = dict.fromkeys(key.split(",")[0] for task in tasks.leaves for key in _keys(results, task))
    measured = name_first([name for name in theirs if not name.endswith("_stderr")])
    return f"the group's score is defined by {own}, which none of its tasks has: they report {measured or 'nothing'}"


def _partly_measured(tasks: LoadedTasks, results: Mapping[str, TaskResult], metric: str) -> str | None:
    """Return a sentence about tasks of a group that are not in its score, since they lack the metric."""
    if not isinstance(tasks.headline, Group):
        return None
    without = [str(task.task_name) for task in tasks.leaves if metric not in _keys(results, task)]
    if not without:
        return None
    number, name = len(tasks.leaves), metric.split(",", maxsplit=1)[0]
    return f"{tasks.name}: {name} is of {number - len(without)} of {number} tasks, without {name_first(without)}"


def _keys(results: Mapping[str, TaskResult], task: Task) -> tuple[str, ...]:
    row = results.get(name_of(task))
    return () if row is None else tuple(row.metrics)
