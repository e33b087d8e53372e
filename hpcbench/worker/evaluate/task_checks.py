"""What keeps loaded eval tasks from being run, found before any weights are loaded.

In: lm-eval's task objects with their documents, the eval's arguments. Out: nothing, or a WorkerError. What plan can
know of local task files it refuses by itself (`config/eval_tasks.py`); this is the rule for all tasks.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from lm_eval.api.registry import METRIC_REGISTRY
from lm_eval.api.task import Task

from hpcbench.data.shots import shots_error
from hpcbench.errors import WorkerError, did_you_mean, name_first
from hpcbench.schemas.arguments import EvalArgs


def check_tasks(tasks: Iterable[Task], eval_args: EvalArgs) -> None:
    """Check that the tasks can be run with these arguments.

    Raises:
        WorkerError: naming the first task that cannot.
    """
    for task in tasks:
        what = f"eval task {task.task_name!r}"
        _check_kind(what, task)
        _check_metrics(what, task)
        docs = getattr(task, "task_docs", None)  # eval_docs would run the task's process_docs once more
        if not len(task.eval_docs if docs is None else docs):
            message = f"{what}: there is nothing to evaluate: its {_split(task)} has no rows"
            raise WorkerError(message, hint="check the task file's data_files and process_docs")
        _check_shots(what, task, eval_args.num_fewshot)


def wanted_shots(task: Task, num_fewshot: int | None) -> int:
    """Return the solved examples that stand before each question."""
    if num_fewshot is None or is_fixed_at_no_shots(task):
        return int(task.get_config("num_fewshot") or 0)
    return num_fewshot


def is_fixed_at_no_shots(task: Task) -> bool:
    """Return whether the task runs without examples whatever num_fewshot asks for, as in lm-eval."""
    return bool(task.get_config("num_fewshot") == 0)


def may_show_its_own_answer(task: Task, num_fewshot: int | None) -> bool:
    """Return whether a question may be among its own solved examples: lm-eval leaves it out of the test split alone."""
    source = _shots_split(task)
    is_same = source is not None and source == _split_name(task)
    return is_same and not _leaves_question_out(task) and wanted_shots(task, num_fewshot) > 0


def missing_metrics(task: Task, reported: Iterable[str]) -> str | None:
    """Return a sentence about the metrics that a task lists and lm-eval did not report, or None."""
    names = {key.split(",")[0] for key in reported}
    missing = [name for name in task.aggregation() if name not in names]
    if not missing:
        return None
    kind = task.get_config("output_type")
    return f"{task.task_name}: lm-eval reports no {name_first(missing)} for a task of output_type {kind}"


def _check_kind(what: str, task: Task) -> None:
    if getattr(task, "MULTIMODAL", False):
        hint = "evaluate a text task"
        raise WorkerError(f"{what}: takes images or sound, and hpcbench evaluates on text only", hint=hint)
    if getattr(task, "UNSAFE_CODE", False):
        message = f"{what}: runs code that the model writes (`unsafe_code: true`), which hpcbench does not do"
        raise WorkerError(message, hint="run lm-eval in a sandbox by eval_args.command, with --confirm_run_unsafe_code")


def _check_metrics(what: str, task: Task) -> None:
    """Check that lm-eval found each metric; it only logs those that it did not, and fails after the whole run."""
    functions: dict[str, Any] = getattr(task, "_metric_fn_list", {})
    has_own_results = getattr(getattr(task, "config", None), "process_results", None) is not None
    unknown = [name for name, function in functions.items() if function is None and not has_own_results]
    if unknown:
        hint = did_you_mean(unknown[0], METRIC_REGISTRY) or "lm-eval's docs/task_guide.md lists the metrics"
        raise WorkerError(f"{what}: unknown metric {unknown[0]!r} in its metric_list", hint=hint)
    combined: dict[str, Any] = getattr(task, "_aggregation_list", {})
    bare = [name for name, function in combined.items() if function is None]
    if bare:
        message = f"{what}: the metric {bare[0]!r} has an `aggregation` that lm-eval does not know"
        raise WorkerError(message, hint="mean, median, perplexity, weighted_perplexity, bits_per_byte, f1, bleu, ...")


def _check_shots(what: str, task: Task, num_fewshot: int | None) -> None:
    shots = wanted_shots(task, num_fewshot)
    sampler = getattr(task, "sampler", None)
    rows = getattr(sampler, "df", None)
    if shots == 0 or (sampler is not None and rows is None):
        return
    num_rows = 0 if rows is None else len(rows)
    split = _shots_split(task)
    place = "its list of examples" if split is None else f"its split {split!r}"
    error = shots_error(shots, num_rows, place=place, without_one=_leaves_question_out(task))
    if error is not None:
        raise WorkerError(f"{what}: {error.message}", hint=error.hint)


def _leaves_question_out(task: Task) -> bool:
    split = getattr(getattr(task, "fewshot_cfg", None), "split", None)
    return split is not None and split == task.get_config("test_split")


def _shots_split(task: Task) -> str | None:
    """Return the split that examples come from, None where the task lists them itself."""
    shots = getattr(task, "fewshot_cfg", None)
    if (split := getattr(shots, "split", None)) is not None:
        return str(split)
    if getattr(shots, "samples", None) is not None:
        return None
    named = (task.get_config(f"{kind}_split") for kind in ("training", "validation", "test"))
    return next((str(split) for split in named if split is not None), None)


def _split_name(task: Task) -> str | None:
    split = task.get_config("test_split") or task.get_config("validation_split")
    return None if split is None else str(split)


def _split(task: Task) -> str:
    name = _split_name(task)
    return "data" if name is None else f"split {name!r}"
