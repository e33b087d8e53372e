"""Which of the local files are which split of an eval task.

In: the keys of its task file that name splits, the splits of `eval_args.local_data`, the solved examples that are asked
for. Out: the task's splits with their files, or what is missing. Plan and the worker choose by this one rule.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from hpcbench.data.local_splits import EVALUATED, SAME_SPLITS, SUBSET
from hpcbench.errors import WorkerError, name_first, plural

SPLIT_KEYS: Final = ("test_split", "validation_split", "training_split", "fewshot_split")
"""Keys of a task file; the first that is set is evaluated."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SplitChoice:
    """The splits of one task that local files give."""

    evaluated: str
    """The task's name of the split that it evaluates."""
    patterns: Mapping[str, str]
    """The task's name of a split -> where its files are."""
    source_of_shots: str | None
    """The task's name of the split that solved examples are of; None where the task lists them itself."""
    absent: tuple[str, ...]
    """Keys of the task file whose split has no file and is not needed."""


def choose_splits(
    what: str, config: Mapping[str, Any], local_data: Mapping[str, str], num_fewshot: int | None
) -> SplitChoice:
    """Return the splits of a task that its local files give.

    Args:
        what: the task, for messages.
        config: the keys of its file.
        local_data: split -> pattern of its files.
        num_fewshot: what eval_args asks for; None takes the task's own.

    Raises:
        WorkerError: there is no file for the split that is evaluated, or none for the solved examples.
    """
    named = {key: str(config[key]) for key in SPLIT_KEYS if isinstance(config.get(key), str)}
    evaluated = named.get("test_split", named.get("validation_split"))
    if evaluated is None:
        raise WorkerError(f"{what}: neither test_split nor validation_split", hint="name the split that is evaluated")
    patterns: dict[str, str] = {}
    for split in dict.fromkeys(named.values()):
        found = _find(split, local_data, is_evaluated=split == evaluated)
        if found is not None:
            patterns[split] = found
    given = "that of the questions alone" if set(local_data) == {EVALUATED} else ", ".join(local_data)
    if evaluated not in patterns:
        hint = f"local_data: {{{evaluated}: FILE}}"
        raise WorkerError(f"{what}: local_data has no split {evaluated!r}, which it evaluates, but {given}", hint=hint)
    source = _source_of_shots(config, named)
    shots = count_shots(config, num_fewshot)
    if source is not None and source not in patterns and shots:
        message = f"{what}: its {shots} solved examples are of its split {source!r}, and local_data has {given}"
        hint = f"local_data: {{{source}: FILE, {evaluated}: FILE}}, or num_fewshot: 0"
        raise WorkerError(message, hint=hint)
    absent = tuple(key for key, split in named.items() if split not in patterns)
    return SplitChoice(evaluated=evaluated, patterns=patterns, source_of_shots=source, absent=absent)


def check_one_file_each(what: str, tasks: Sequence[str], local_data: Mapping[str, str]) -> None:
    """Raise where several tasks would read one file.

    Raises:
        WorkerError: a pattern has no place for the subset, and the tasks are several.
    """
    shared = next((pattern for pattern in local_data.values() if SUBSET not in pattern), None)
    if shared is not None and len(tasks) > 1:
        message = f"{what}: local_data gives {plural(len(tasks), 'task')} ({name_first(tasks)}) one file: {shared}"
        raise WorkerError(message, hint=f"write {SUBSET} in place of each one's dataset_name, or evaluate one of them")


def _find(split: str, local_data: Mapping[str, str], *, is_evaluated: bool) -> str | None:
    if split in local_data:
        return local_data[split]
    if is_evaluated and EVALUATED in local_data:
        return local_data[EVALUATED]
    alike = next((names for names in SAME_SPLITS if split in names), frozenset())
    return next((pattern for name, pattern in local_data.items() if name in alike), None)


def _source_of_shots(config: Mapping[str, Any], named: Mapping[str, str]) -> str | None:
    """Return the split that solved examples are of, None where the task lists them itself."""
    more = config.get("fewshot_config")
    more = more if isinstance(more, Mapping) else {}
    if more.get("samples") is not None and more.get("split") is None:
        return None
    order = ("fewshot_split", "training_split", "validation_split", "test_split")
    return str(more.get("split") or next(named[key] for key in order if key in named))


def count_shots(config: Mapping[str, Any], num_fewshot: int | None) -> int:
    """Return the solved examples that stand before each question."""
    own = config.get("num_fewshot")
    # As in lm-eval, a task fixed at 0 shots stays there.
    shots = own or 0 if num_fewshot is None or own == 0 else num_fewshot
    return shots if isinstance(shots, int) else 0
