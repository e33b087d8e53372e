"""Encoded rows as an Arrow file that processes map into memory, so that all of them share one copy.

In: encoded rows. Out: a file, and later the same rows of it, value by value. The file is an Arrow IPC stream, which
`datasets.Dataset.from_file` opens too. It knows nothing of where such files lie or how long they stay.
"""

from __future__ import annotations

import os
from array import array
from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, overload

import numpy as np

from hpcbench.data.images import ImageSource
from hpcbench.worker.data.encoded import Encoded

if TYPE_CHECKING:
    import pyarrow as pa

ROWS_PER_BATCH: Final = 256
"""Few enough that the offsets of their tokens, which Arrow counts in 32 bits, never overflow."""
REJECTED: Final = "rejected_"
"""Before the names of the columns of a rejected answer; it has no tokens where there is none."""


def write_rows(path: Path, rows: Sequence[Encoded]) -> None:
    """Write rows into a new file.

    Raises:
        OSError: it cannot be written.
    """
    import pyarrow as pa

    schema = _schema()
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_stream(sink, schema) as writer:
        for start in range(0, len(rows), ROWS_PER_BATCH):
            part = rows[start : start + ROWS_PER_BATCH]
            answers = {"": part, REJECTED: [row.rejected or _NOTHING for row in part]}
            columns: dict[str, pa.Array] = {"is_good": pa.array([row.is_good for row in part], pa.bool_())}
            for prefix, encoded in answers.items():
                columns |= {prefix + name: column for name, column in _columns(encoded).items()}
            writer.write_batch(pa.RecordBatch.from_arrays([columns[name] for name in schema.names], schema=schema))


class StoredRows(Sequence[Encoded]):
    """The rows of such a file, made of the mapped memory each time one is asked for."""

    def __init__(self, path: Path) -> None:
        """Map a file into memory.

        Raises:
            OSError: it is not there.
            ValueError: it is a file of another kind.
        """
        import pyarrow as pa

        self._path = path
        with pa.memory_map(str(path)) as source, pa.ipc.open_stream(source) as reader:
            batches = list(reader)
        self._batches = [_Batch(batch) for batch in batches]
        self._ends = np.cumsum([batch.num_rows for batch in batches], dtype=np.int64).tolist()

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    @overload
    def __getitem__(self, index: int) -> Encoded: ...
    @overload
    def __getitem__(self, index: slice) -> list[Encoded]: ...
    def __getitem__(self, index: int | slice) -> Encoded | list[Encoded]:
        if isinstance(index, slice):
            return [self[each] for each in range(*index.indices(len(self)))]
        number = range(len(self))[index]
        at = bisect_right(self._ends, number)
        return self._batches[at].row(number - (self._ends[at - 1] if at else 0))

    def __reduce__(self) -> tuple[type[StoredRows], tuple[Path]]:
        return StoredRows, (self._path,)  # a spawned data loader maps the file by itself

    def lengths(self) -> list[int]:
        """Return each row's tokens that go into the model, as `Encoded.num_tokens` counts them."""
        return [length for batch in self._batches for length in (batch.count("") + batch.count(REJECTED)).tolist()]

    def find_shortest(self) -> Encoded:
        """Return the first of the rows with the fewest tokens before a rejected answer."""
        return self[int(np.argmin(np.concatenate([batch.count("") for batch in self._batches])))]


@dataclass(frozen=True, slots=True)
class _Answer:
    """The columns of one answer, as views of the mapped memory."""

    ids: tuple[Any, Any]
    """Where each row begins in the values, and the values; so in the next two."""
    labels: tuple[Any, Any]
    weights: tuple[Any, Any]
    truncated: Any
    images: Any


class _Batch:
    """Some neighboring rows."""

    def __init__(self, batch: pa.RecordBatch) -> None:
        self._is_good = batch.column("is_good")
        self._answers = {prefix: _view(batch, prefix) for prefix in ("", REJECTED)}

    def count(self, prefix: str) -> Any:
        """Return each row's number of tokens."""
        return np.diff(self._answers[prefix].ids[0])

    def row(self, index: int) -> Encoded:
        return Encoded(
            **_read(self._answers[""], index),
            rejected=Encoded(**_read(self._answers[REJECTED], index)) if self._has_rejected(index) else None,
            is_good=self._is_good[index].as_py(),
        )

    def _has_rejected(self, index: int) -> bool:
        starts = self._answers[REJECTED].ids[0]
        return bool(starts[index + 1] > starts[index])


_NOTHING: Final = Encoded(input_ids=(), labels=())


def _schema() -> pa.Schema:
    import pyarrow as pa

    picture = pa.struct({"path": pa.binary(), "data": pa.binary()})
    answer = {
        "input_ids": pa.list_(pa.int32()),
        "labels": pa.list_(pa.int32()),
        "weights": pa.list_(pa.float32()),
        "truncated": pa.bool_(),
        "images": pa.list_(picture),
    }
    fields = {prefix + name: kind for prefix in ("", REJECTED) for name, kind in answer.items()}
    return pa.schema([*fields.items(), ("is_good", pa.bool_())])


def _columns(rows: Sequence[Encoded]) -> dict[str, pa.Array]:
    import pyarrow as pa

    return {
        "input_ids": _lists([row.input_ids for row in rows], np.int32),
        "labels": _lists([row.labels for row in rows], np.int32),
        # A row has tokens, so no weights at all means that there are none.
        "weights": _lists([row.weights or () for row in rows], np.float32),
        "truncated": pa.array([row.truncated for row in rows], pa.bool_()),
        "images": pa.array([[_plain(image) for image in row.images] for row in rows], _schema().field("images").type),
    }


def _lists(rows: Iterable[Sequence[float]], dtype: type[np.generic]) -> pa.Array:
    import pyarrow as pa

    values = [np.asarray(row, dtype=dtype) for row in rows]
    ends = np.cumsum([0, *map(len, values)], dtype=np.int32)
    return pa.ListArray.from_arrays(pa.array(ends), pa.array(np.concatenate(values)))


def _plain(image: ImageSource) -> Mapping[str, bytes | None]:
    # A file name may be any bytes.
    return {"path": None if image.path is None else os.fsencode(image.path), "data": image.data}


def _view(batch: pa.RecordBatch, prefix: str) -> _Answer:
    def lists(name: str) -> tuple[Any, Any]:
        column = batch.column(prefix + name)
        return column.offsets.to_numpy(), column.values.to_numpy()

    return _Answer(
        ids=lists("input_ids"),
        labels=lists("labels"),
        weights=lists("weights"),
        truncated=batch.column(f"{prefix}truncated"),
        images=batch.column(f"{prefix}images"),
    )


def _read(answer: _Answer, index: int) -> dict[str, Any]:
    return {
        "input_ids": _slice("i", answer.ids, index),
        "labels": _slice("i", answer.labels, index),
        "weights": _slice("f", answer.weights, index) or None,
        "truncated": answer.truncated[index].as_py(),
        "images": tuple(_image(found) for found in answer.images[index].as_py()),
    }


def _slice(code: str, column: tuple[Any, Any], index: int) -> array[Any]:
    starts, values = column
    return array(code, values[starts[index] : starts[index + 1]].tobytes())


def _image(found: Mapping[str, bytes | None]) -> ImageSource:
    path = found["path"]
    return ImageSource(path=None if path is None else Path(os.fsdecode(path)), data=found["data"])
