"""What makes scores hard to compare or to believe, one sentence each, not yet escaped."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence

from hpcbench.errors import name_first, plural
from hpcbench.report.facts import EvalFacts, Facts
from hpcbench.schemas.metrics import TaskResult

_REASONS_OF_OURS = frozenset({"eval_loss", "infer", "parameters", "primary_metric"})
"""Fields of an eval's metrics that may be null; other names in `unknown` are figures of a program."""
_MORE_ROOM = "lower num_fewshot or gen_kwargs.max_gen_toks, or raise max_length where the model allows it"


def eval_warnings(experiments: Iterable[Facts]) -> list[str]:
    """Return what is to be said about the evals of a suite, dataset by dataset."""
    by_dataset: defaultdict[str, dict[str, EvalFacts]] = defaultdict(dict)
    for facts in experiments:
        for dataset, found in facts.evals.items():
            if found.metrics is not None:
                by_dataset[dataset][facts.view.name] = found
    warnings: list[str] = []
    for dataset, evals in by_dataset.items():
        warnings += [*_differences(dataset, list(evals.values())), *_cuts(dataset, evals), *_remarks(dataset, evals)]
    return warnings


def figure_warnings(experiments: Iterable[Facts]) -> list[str]:
    """Return the figures of programs that could not be kept as they were reported."""
    reasons: defaultdict[tuple[str, str], list[str]] = defaultdict(list)
    for facts in experiments:
        for name, reason in facts.command.unknown.items() if facts.command is not None else ():
            reasons[name, reason].append(facts.view.name)
    return [f"figure {name}: {reason} ({name_first(names)})" for (name, reason), names in reasons.items()]


def either(values: Iterable[str]) -> str:
    """Return different values as `a or b`."""
    return " or ".join(dict.fromkeys(values))


def _differences(dataset: str, evals: Sequence[EvalFacts]) -> list[str]:
    warnings: list[str] = []
    metrics = [found.metrics for found in evals if found.metrics is not None]
    if {"best", "last"} <= {metric.checkpoint_choice for metric in metrics}:
        warnings.append(f"{dataset}: some rows were evaluated at their best, others at their last checkpoint")
    if {True, False} <= {metric.chat_template_applied for metric in metrics}:
        warnings.append(f"{dataset}: the chat template was applied to some rows only")
    shots = {found.score.num_fewshot for found in evals if found.score is not None}
    if len(shots) > 1:
        warnings.append(f"{dataset}: rows were evaluated with different numbers of shots ({either(map(str, shots))})")
    return warnings


def _cuts(dataset: str, evals: dict[str, EvalFacts]) -> list[str]:
    """Return how many prompts lost their beginning, and so maybe their examples."""
    names: defaultdict[str, list[str]] = defaultdict(list)
    for name, found in evals.items():
        assert found.metrics is not None  # noqa: S101
        tasks = found.metrics.tasks
        whole = tasks.get(found.metrics.primary_task)
        # A group without a score has no row of its own.
        rows = [whole] if whole is not None else list(tasks.values())
        if text := _cut_text(rows):
            names[text].append(name)
    return [f"{dataset}: {text} ({name_first(found)}); {_MORE_ROOM}" for text, found in names.items()]


def _cut_text(rows: Sequence[TaskResult]) -> str:
    num_cut = sum(row.num_prompts_cut for row in rows)
    if not num_cut:
        return ""
    shots = {row.num_fewshot for row in rows if row.num_fewshot is not None}
    prompts = plural(sum(row.num_samples for row in rows), f"{min(shots)}-shot prompt" if len(shots) == 1 else "prompt")
    limits = [row.prompt_limit_tokens for row in rows if row.prompt_limit_tokens is not None]
    return f"{num_cut} of {prompts} did not fit and were cut to the last {min(limits, default=0)} tokens"


def _remarks(dataset: str, evals: dict[str, EvalFacts]) -> list[str]:
    """Return why there is no score, and what the evals themselves say about theirs."""
    names: defaultdict[str, list[str]] = defaultdict(list)
    for name, found in evals.items():
        assert found.metrics is not None  # noqa: S101
        reason = found.metrics.unknown.get("primary_metric")
        texts = [f"no score: {reason}"] if found.score is None and reason is not None else []
        texts += [f"{key}: {text}" for key, text in found.metrics.unknown.items() if key not in _REASONS_OF_OURS]
        for text in (*texts, *found.metrics.notices):
            names[text].append(name)
    # A task of the dataset's own name is named already.
    prefix = f"{dataset}: "
    return [f"{prefix}{text.removeprefix(prefix)} ({name_first(found)})" for text, found in names.items()]
