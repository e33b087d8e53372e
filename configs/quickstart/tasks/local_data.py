"""Load the rows of a local lm-eval task from JSON lines that lie at a path relative to the task's own folder.

In: the task YAML's `dataset_kwargs`, that is `data_files: {split: path}`. Out: the splits as datasets in memory.
lm-eval resolves relative `data_files` against the working directory, which in a job is anywhere, so the task names this
loader as its `custom_dataset`. Nothing is written: `datasets.load_dataset` would fill a cache and lock files in it, on
file systems where locks do not work.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from datasets import Dataset, DatasetDict


def load(data_files: Mapping[str, str], **_: object) -> DatasetDict:
    """Return the splits named by `data_files`.

    Args:
        data_files: split name to JSON-lines path, absolute or relative to this file's folder.
        _: the task's `metadata`, which lm-eval passes along.
    """
    here = Path(__file__).resolve().parent
    return DatasetDict({split: Dataset.from_list(_read_rows(here / path)) for split, path in data_files.items()})


def _read_rows(path: Path) -> list[dict[str, object]]:
    """Read JSON lines; blank lines do not count."""
    with path.open(encoding="utf-8") as lines:
        return [json.loads(line) for line in lines if line.strip()]
