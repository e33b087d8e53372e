"""Any dataset to rows: local files by the code that plan reads them with, hub datasets from the local cache.

In: where a dataset is. Out: its rows under hpcbench's field names, one at a time. In a job it never downloads: the hubs
are off there.
"""

from __future__ import annotations

from collections.abc import Iterator

from hpcbench.data.files import read_rows
from hpcbench.data.rows import Place, PlacedRow
from hpcbench.data.sources import DatasetSource
from hpcbench.errors import WorkerError


def read_dataset(source: DatasetSource) -> Iterator[PlacedRow]:
    """Yield the rows of one dataset under hpcbench's field names.

    Raises:
        WorkerError: it is not there, or not readable.
    """
    rows = _read_hub(source) if source.path is None else read_rows(source.path)
    for row, place in rows:
        yield PlacedRow(source.layout.apply(row), place)


def _read_hub(source: DatasetSource) -> Iterator[PlacedRow]:
    from datasets import load_dataset

    name = source.name
    if source.huggingface is None:
        raise WorkerError(
            f"dataset {name!r}: no Hugging Face id is known"
            + (f", and ModelScope's ({source.modelscope}) is not read by hpcbench" if source.modelscope else ""),
            hint="download it and name the local file, or add its id to ~/.config/hpcbench/datasets.yaml",
        )
    try:
        loaded = load_dataset(source.huggingface, source.subset, split=source.split)
    except Exception as error:  # the hub's client raises its own, requests', OSError and ValueError
        raise WorkerError(
            f"dataset {name!r}: no such local file, and not in the local cache: {type(error).__name__}: {error}",
            hint="run `hpcbench prefetch CONFIG` where there is internet, or name a local file",
        ) from error
    for number, row in enumerate(loaded, start=1):
        yield PlacedRow(dict(row), Place(name, "row", number))
