"""What plan can know of the local data of an eval task: files that are not there, splits, rows for the solved examples.

In: the keys of a task file. Out: what is wrong. Rows are read as far as the examples need; data of a hub are left to
the job.
"""

from __future__ import annotations

import glob
import os
from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

from hpcbench.data.file_kinds import recognize
from hpcbench.data.files import read_rows
from hpcbench.data.local_splits import SUBSET, find_split_files, iterate_split
from hpcbench.data.shots import shots_error
from hpcbench.data.split_choice import choose_splits, count_shots
from hpcbench.errors import MissingLibraryError, WorkerError

LOCAL_FORMATS = frozenset({"json", "csv", "parquet", "text", "arrow"})
"""What `dataset_path` may be where the data are files: builders of the `datasets` library."""
MOST_SHOTS = 10_000
ABSOLUTE = "an absolute path: jobs run in folders of their own"


def data_faults(what: str, config: Mapping[str, Any], num_fewshot: int | None) -> Iterator[WorkerError]:
    """Yield what is wrong with local data; a MissingLibraryError says what could not be looked at here.

    Args:
        what: the task, for messages.
        config: the keys of its file.
        num_fewshot: what eval_args asks for; None takes the task's own.
    """
    options = config.get("dataset_kwargs") or {}
    if config.get("custom_dataset") or not isinstance(options, Mapping):
        return
    path = config.get("dataset_path")
    if isinstance(path, str) and path.startswith(("./", "../", "~")):
        yield WorkerError(
            f"{what}: dataset_path {path!r} would be looked for in the job's folder", hint=f"write {ABSOLUTE}"
        )
    if not isinstance(path, str) or path not in LOCAL_FORMATS or "data_files" not in options:
        return
    by_split = _files_by_split(options["data_files"])
    if by_split is None or "data_dir" in options:
        return
    num_faults = 0
    for name in dict.fromkeys(name for names in by_split.values() for name in names):
        if (fault := _check_file(name, path)) is not None:
            num_faults += 1
            yield WorkerError(f"{what}: data_files: {fault.message}", hint=fault.hint)
    used = {key: config.get(key) for key in ("test_split", "validation_split", "training_split", "fewshot_split")}
    for key, split in used.items():
        if isinstance(split, str) and split not in by_split:
            num_faults += 1
            hint = f"data_files has {', '.join(by_split)}"
            yield WorkerError(f"{what}: {key}: {split!r} is not a split of its data", hint=hint)
    # What code makes of the rows, and rows within a field, can only be counted by running it.
    if num_faults or config.get("process_docs") or options.keys() - {"data_files"}:
        return
    if not config.get("test_split") and not config.get("validation_split"):
        return
    yield from _row_faults(what, config, by_split, num_fewshot)


def local_data_faults(
    what: str, config: Mapping[str, Any], local_data: Mapping[str, str], num_fewshot: int | None
) -> Iterator[WorkerError]:
    """Yield what is wrong with `eval_args.local_data` for one task; a MissingLibraryError as above."""
    try:
        choice = choose_splits(what, config, local_data, num_fewshot)
    except WorkerError as error:
        yield error
        return
    subset = config.get("dataset_name")
    shots = count_shots(config, num_fewshot)
    for split, pattern in choice.patterns.items():
        if SUBSET in pattern and not isinstance(subset, str):
            yield WorkerError(f"{what}: has no subset to put in place of {SUBSET}", hint="name its files in local_data")
            continue
        files = find_split_files(pattern, subset)
        is_evaluated, is_source = split == choice.evaluated, split == choice.source_of_shots
        if not files:
            yield WorkerError(f"{what}: local_data: no such file: {pattern.replace(SUBSET, str(subset))}")
            continue
        try:
            num_rows = sum(1 for _ in islice(iterate_split(files), shots + 1 if is_source else 1))
        except WorkerError as error:
            yield error
            continue
        if is_evaluated and not num_rows:
            yield WorkerError(f"{what}: nothing to evaluate: its split {split!r} has no rows")
        elif is_source and shots:
            too_few = shots_error(shots, num_rows, place=f"its split {split!r}", without_one=is_evaluated)
            if too_few is not None:
                yield WorkerError(f"{what}: {too_few.message}", hint=too_few.hint)


def _files_by_split(files: Any) -> dict[str, list[str]] | None:
    """Return the files of each split; what is not named by split is `train`, as `datasets` has it."""
    named = files if isinstance(files, Mapping) else {"train": files}
    found = {str(split): [names] if isinstance(names, str) else names for split, names in named.items()}
    are_texts = all(isinstance(names, list) and all(isinstance(n, str) for n in names) for names in found.values())
    return found if are_texts else None


def _check_file(name: str, kind: str) -> WorkerError | None:
    if "://" in name:
        return None
    if not Path(name).is_absolute():
        return WorkerError(f"{name!r} would be looked for in the job's folder", hint=f"write {ABSOLUTE}")
    paths = _expand(name)
    if not paths:
        return WorkerError(f"no such file: {name}")
    if kind == "text" or not paths[0].is_file():
        return None
    try:
        recognize(paths[0])
    except MissingLibraryError:
        return None
    except WorkerError as error:
        return error
    return None


def _row_faults(
    what: str, config: Mapping[str, Any], by_split: Mapping[str, list[str]], num_fewshot: int | None
) -> Iterator[WorkerError]:
    evaluated = str(config.get("test_split") or config.get("validation_split"))
    own = config.get("num_fewshot")
    # As in lm-eval, a task fixed at 0 shots stays there.
    shots = own or 0 if num_fewshot is None or own == 0 else num_fewshot
    if not isinstance(shots, int) or not 0 <= shots <= MOST_SHOTS:
        yield WorkerError(f"{what}: num_fewshot does not say how many solved examples", hint=f"write 0 to {MOST_SHOTS}")
        return
    more = config.get("fewshot_config") or {}
    if not isinstance(more, Mapping) or "samples" in more or more.get("process_docs"):
        return
    chosen = more.get("split", config.get("fewshot_split"))
    others = (config.get(f"{kind}_split") for kind in ("training", "validation", "test"))
    source = str(chosen or next((split for split in others if split), evaluated))
    leaves_question_out = chosen is not None and chosen == config.get("test_split")
    try:
        if not _count_rows(by_split.get(evaluated, []), 1):
            yield WorkerError(f"{what}: nothing to evaluate: its split {evaluated!r} has no rows")
            return
        num_rows = _count_rows(by_split.get(source, []), shots + 1)
    except MissingLibraryError as error:
        yield error
        return
    except WorkerError as error:
        yield WorkerError(f"{what}: data_files: {error.message}", hint=error.hint)
        return
    too_few = shots_error(shots, num_rows, place=f"its split {source!r}", without_one=leaves_question_out)
    if too_few is not None:
        yield WorkerError(f"{what}: {too_few.message}", hint=too_few.hint)


def _count_rows(names: list[str], most: int) -> int:
    """Return the number of rows in local files, up to `most`; what is elsewhere may have any number."""
    if any("://" in name for name in names):
        return most
    rows = (row for name in names for path in _expand(name) for row in read_rows(path))
    return sum(1 for _ in islice(rows, most))


def _expand(name: str) -> list[Path]:
    """Return the existing files and folders that a path or a glob names."""
    if os.path.exists(name):  # noqa: PTH110  # Path.exists raises where a name is too long or holds a NUL
        return [Path(name)]
    return [Path(found) for found in sorted(glob.glob(name, recursive=True))]  # noqa: PTH207  # may be absolute
