"""The rows of a dataset that are trained on, and what becomes of the others, as `check_dataset_strategy` says.

In: rows with their places, what reads them. Out: chats with their places, or the error that plan and the job both
raise. As in ms-swift 2.x (swift/llm/utils/dataset.py, _check_dataset) discard and warning leave a bad row out, and
error raises; none, with which ms-swift does not check, raises too, since such a row cannot be trained on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Literal, NamedTuple

from hpcbench.data.row_reader import Chat, RowReader
from hpcbench.data.rows import Place, PlacedRow
from hpcbench.errors import DataError

Strategy = Literal["none", "discard", "error", "warning"]


class PlacedChat(NamedTuple):
    """What one row teaches, with its place."""

    chat: Chat
    place: Place


def read_good_rows(
    rows: Iterable[PlacedRow],
    reader: RowReader,
    strategy: Strategy,
    *,
    name: str,
    on_bad: Callable[[DataError], None] = lambda _error: None,
    are_all: Callable[[], bool] = lambda: True,
) -> Iterator[PlacedChat]:
    """Yield what each row teaches, in order.

    Args:
        rows: of one dataset.
        reader: reads them.
        strategy: what becomes of a bad row.
        name: of the dataset, for messages.
        on_bad: takes the error of each row that is left out.
        are_all: says at the end whether these were all rows of the dataset; some rows may be bad, all may not.

    Raises:
        DataError: a bad row that is not left out, no good row at all, or a file that cannot be read.
    """
    left = iter(rows)
    num_good = num_bad = 0
    first: DataError | None = None
    for placed in left:
        try:
            chat = reader.read_placed(placed)
        except DataError as error:
            if strategy in {"none", "error"}:
                has_good = num_good > 0 or _has_good(left, reader)
                hint = "check_dataset_strategy: discard leaves such rows out" if has_good else None
                raise DataError(error.fault, expected=error.expected, hint=hint) from error
            num_bad += 1
            first = first or error
            on_bad(error)
        else:
            num_good += 1
            yield PlacedChat(chat, placed.place)
    if num_good or not are_all():
        return
    if first is None:
        raise DataError(f"{name}: holds no rows")
    others = f" (and so in every one of its {num_bad} rows)" if num_bad > 1 else ""
    raise DataError(f"{first.fault}{others}", expected=first.expected)


def _has_good(rows: Iterator[PlacedRow], reader: RowReader) -> bool:
    """Return whether one of the rows is good; where reading them fails, none is."""
    try:
        for placed in rows:
            try:
                reader.read_placed(placed)
            except DataError:
                continue
            return True
    except DataError:
        return False
    return False
