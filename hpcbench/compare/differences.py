"""What else differs between two experiments than their results: arguments, hardware, software.

In: experiments. Out: changes by name, remarks on single metrics that depend on them, and warnings for a whole document.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from hpcbench.compare.result import Change, Pair
from hpcbench.compare.runs import COMPARED_ENVIRONMENT, MEMORY_SOURCE, Experiment, RunScore
from hpcbench.errors import name_first
from hpcbench.report.escape import one_line

HARDWARE = frozenset({"gpus", "driver", "cpu", "resources"})
TRAINING_DATA = frozenset(
    {
        "model_type",
        "model_id_or_path",
        "dataset",
        "val_dataset",
        "train_dataset_mix_ratio",
        "train_dataset_sample",
        "dataset_test_ratio",
        "dataset_split_seed",
        "loss_on_all_rounds",
        "plain_text",
        "rlhf_type",
    }
)
"""Arguments that make losses another quantity."""
_LOSSES = frozenset({"train_loss", "eval_loss", "rouge_l", "reward_margin", "reward_accuracy", "train_reward_margin"})
_UNSET = "-"
_VALUE_LIMIT = 80


def setting_changes(before: Experiment, after: Experiment) -> tuple[Change, ...]:
    """Return the arguments that both sides know and that differ, by name."""
    sides = [[run.settings for run in experiment.runs] for experiment in (before, after)]
    return _changes(sides[0], sides[1], sorted(_known(sides[0]) & _known(sides[1])))


def environment_changes(before: Experiment, after: Experiment) -> tuple[Change, ...]:
    """Return what differs of hardware and software, where both sides know it."""
    sides = [[run.environment for run in experiment.runs] for experiment in (before, after)]
    names = _known(sides[0]) & _known(sides[1])
    return _changes(sides[0], sides[1], [name for name in COMPARED_ENVIRONMENT if name in names])


def figure_remarks(metric: str, settings: Sequence[Change], environment: Sequence[Change]) -> tuple[str, ...]:
    """Return what a figure depends on and what differs, in words."""
    changed = {change.name for change in environment}
    remarks = []
    if metric in _LOSSES and any(change.name in TRAINING_DATA for change in settings):
        remarks.append("another model, other data or another loss")
    if metric.endswith(("_per_second", "_s")) and changed & HARDWARE:
        remarks.append("other hardware")
    if metric.startswith("memory") and MEMORY_SOURCE in changed:
        remarks.append("memory measured otherwise")
    return tuple(remarks)


def score_remarks(before: Sequence[RunScore], after: Sequence[RunScore]) -> tuple[str, ...]:
    """Return what differs in how a score was made."""
    questions: tuple[tuple[str, Callable[[RunScore], object]], ...] = (
        ("{}-shot against {}-shot", lambda score: score.num_fewshot),
        ("{} documents against {}", lambda score: score.num_documents),
        ("task version {} against {}", lambda score: score.version),
    )
    remarks = []
    for text, read in questions:
        old, new = (" and ".join(sorted({str(read(score)) for score in scores})) for scores in (before, after))
        if before and after and old != new:
            remarks.append(text.format(old, new))
    return tuple(remarks)


def environment_warnings(pairs: Iterable[Pair]) -> tuple[str, ...]:
    """Return what differs of hardware and software, each change once with the experiments that it happened to."""
    names: defaultdict[Change, list[str]] = defaultdict(list)
    for pair in pairs:
        for change in pair.environment:
            names[change].append(pair.name)
    return tuple(
        f"{change.name} differs: {change.before} → {change.after} ({name_first(found)})"
        for change, found in names.items()
    )


def seed_warnings(pairs: Iterable[Pair]) -> tuple[str, ...]:
    """Return which significant differences are between seeds, since nothing else differs."""
    found = [
        pair.name
        for pair in pairs
        if {change.name for change in pair.settings} == {"seed"}
        and any(comparison.verdict in {"better", "worse"} for comparison in pair.comparisons)
    ]
    if not found:
        return ()
    return (f"only the seed differs, so that significant differences are those of seeds: {name_first(found)}",)


def _known(runs: Iterable[Mapping[str, Any]]) -> set[str]:
    return {name for run in runs for name in run}


def _changes(
    before: Sequence[Mapping[str, Any]], after: Sequence[Mapping[str, Any]], names: Iterable[str]
) -> tuple[Change, ...]:
    found = ((name, _texts(before, name), _texts(after, name)) for name in names)
    return tuple(Change(name=name, before=old, after=new) for name, old, new in found if old != new)


def _texts(runs: Sequence[Mapping[str, Any]], name: str) -> str:
    """Return the value of a name in all runs, each value once."""
    texts = dict.fromkeys(_text(run.get(name)) for run in runs)
    return one_line(", ".join(sorted(texts, key=lambda text: (len(text), text))), limit=_VALUE_LIMIT)


def _text(value: object) -> str:
    if value is None or value == "":
        return _UNSET
    if isinstance(value, str):
        return value
    if isinstance(value, float):
        return f"{value:g}"
    return json.dumps(value, ensure_ascii=False, sort_keys=True, default=str)
