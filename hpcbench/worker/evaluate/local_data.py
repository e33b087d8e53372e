"""Local files in place of the data that lm-eval's tasks load from a hub.

In: an index of tasks, the names that are evaluated, `eval_args.local_data`. Out: the same index, whose tasks read the
files: a task file for each, which includes the task's own as a person would write it by hand. It reads no rows before
lm-eval asks for them.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml
from datasets import Dataset, DatasetDict
from lm_eval.tasks import TaskManager

from hpcbench.data.local_splits import SUBSET, find_split_files, read_split
from hpcbench.data.split_choice import check_one_file_each, choose_splits
from hpcbench.data.task_files import member_names
from hpcbench.errors import DataError, WorkerError, first_line

READER = f"{__name__}.load_splits"
_TASK_LOGGER = logging.getLogger("lm_eval.api.task")


@contextmanager
def with_local_data(
    manager: TaskManager, names: Sequence[str], local_data: Mapping[str, str], num_fewshot: int | None
) -> Iterator[None]:
    """Have the tasks behind the names read local files, for tasks that are loaded within.

    Raises:
        WorkerError: a task chooses its data by itself, or has no file for a split that it needs.
    """
    if not local_data:
        yield
        return
    with tempfile.TemporaryDirectory(prefix="hpcbench-tasks-") as folder:
        leaves = list(dict.fromkeys(leaf for name in names for leaf in _leaves(manager, name)))
        check_one_file_each(f"eval dataset {' '.join(names)!r}", leaves, local_data)
        for number, leaf in enumerate(leaves):
            _write_task_file(Path(folder) / f"{number}.yaml", manager, leaf, local_data, num_fewshot)
        derived = TaskManager(include_path=folder, include_defaults=False)
        manager.task_index.update({leaf: derived.task_index[leaf] for leaf in leaves})
        _TASK_LOGGER.addFilter(_is_of_use)
        try:
            yield
        finally:
            _TASK_LOGGER.removeFilter(_is_of_use)


def load_splits(*, local_files: Mapping[str, Sequence[str]], **_metadata: Any) -> DatasetDict:
    """Return the splits of a task, as lm-eval calls it: with the task's metadata and `dataset_kwargs`.

    Raises:
        WorkerError: there are no such files, or their rows make no table.
    """
    return DatasetDict({split: _load_split(split, *where) for split, where in local_files.items()})


def _is_of_use(record: logging.LogRecord) -> bool:
    """Return whether a warning of lm-eval is not its advice on data that a function loads, two lines for each task."""
    return "Custom kwargs can be passed" not in record.getMessage()


def _load_split(split: str, pattern: str, subset: str | None = None) -> Dataset:
    files = find_split_files(pattern, subset)
    if not files:
        wanted = pattern.replace(SUBSET, subset or SUBSET)
        raise WorkerError(f"eval_args.local_data: {split}: no such file: {wanted}")
    rows = read_split(files)
    if not rows:
        raise WorkerError(f"eval_args.local_data: {split}: {files[0]} holds no rows")
    try:
        return Dataset.from_list(rows)
    except (ValueError, TypeError, OverflowError) as error:  # pyarrow's own errors are of these kinds
        raise DataError(f"{files[0]}: its rows make no table: {first_line(error)}") from error


def _leaves(manager: TaskManager, name: str) -> Iterator[str]:
    """Yield the tasks with documents of their own behind a name of the index."""
    entry = manager.task_index[name]
    config = entry.cfg or {}
    if "group" in config and "class" not in config:
        for member in member_names(config.get("task")):
            if member in manager.task_index:
                yield from _leaves(manager, member)
    elif entry.yaml_path is None and entry.tags:
        for member in sorted(entry.tags):
            yield from _leaves(manager, member)
    else:
        yield name


def _write_task_file(
    file: Path, manager: TaskManager, name: str, local_data: Mapping[str, str], num_fewshot: int | None
) -> None:
    entry = manager.task_index[name]
    config = entry.cfg or {}
    what = f"eval task {name!r}"
    if "class" in config or entry.yaml_path is None:
        raise WorkerError(f"{what}: is written in Python and loads its data by itself", hint="leave local_data out")
    choice = choose_splits(what, config, local_data, num_fewshot)
    subset = config.get("dataset_name")
    if subset is None and any(SUBSET in pattern for pattern in choice.patterns.values()):
        raise WorkerError(f"{what}: has no subset to put in place of {SUBSET}", hint="name its files in local_data")
    values = {
        "task": name,
        "include": str(entry.yaml_path),
        "dataset_kwargs": {"local_files": {split: [text, subset] for split, text in choice.patterns.items()}},
        **dict.fromkeys(choice.absent),
    }
    file.write_text(f"{yaml.safe_dump(values)}custom_dataset: !function {READER}\n", encoding="utf-8")
