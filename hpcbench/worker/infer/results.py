"""The results of an infer job: `results.jsonl`, one object per prompt, to which batch after batch is appended.

In: rows. Out: a file that after a kill holds whole rows alone, each once. It knows no model.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from hpcbench.storage.json_files import sync_folder

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class ResultRow:
    """One answered prompt; as JSON a line of the file."""

    index: int
    """Place of the prompt in the dataset's rows as they were drawn."""
    place: str
    """Where the row stands: file and line."""
    prompt: str
    """With its special tokens, as the model read it."""
    response: str
    label: str | None
    """The dataset's own answer, where it has one."""
    finish: str
    """stop where the answer ended by itself, length where max_new_tokens ended it."""
    prompt_tokens: int
    tokens: int
    """Generated, the end included."""
    first_token_seconds: float
    """From the start of its batch."""
    seconds: float
    """From the start of its batch to its last token."""
    batch: int
    """Number of its batch; rows of a batch were answered at the same time."""


def read_results(path: Path) -> dict[int, ResultRow]:
    """Return the rows by index; lines that a kill tore are left out, of rows that are there twice the first counts."""
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return {}
    found: dict[int, ResultRow] = {}
    # Not splitlines(): answers may hold other separators of lines, which JSON does not escape.
    for line in text.split("\n"):
        row = _parse(line)
        if row is not None:
            found.setdefault(row.index, row)
    return found


def restore_results(path: Path) -> dict[int, ResultRow]:
    """Return the rows of an earlier attempt, and cut off a torn last line, so that no line is appended to it."""
    found = read_results(path)
    if path.exists():
        content = path.read_bytes()
        whole = content.rfind(b"\n") + 1
        if whole < len(content):
            logger.info("%s: the last line is cut off, its row is answered again", path)
            with path.open("r+b") as stream:
                stream.truncate(whole)
                os.fsync(stream.fileno())
            return read_results(path)
    return found


def append_results(path: Path, rows: Sequence[ResultRow]) -> None:
    """Append rows; they are on disk when this returns."""
    text = "".join(json.dumps(asdict(row), ensure_ascii=False, allow_nan=False) + "\n" for row in rows)
    is_new = not path.exists()
    with path.open("ab") as stream:
        stream.write(text.encode("utf-8", "replace"))
        stream.flush()
        os.fsync(stream.fileno())
    if is_new:
        sync_folder(path.parent)


def _parse(line: str) -> ResultRow | None:
    try:
        value: Any = json.loads(line)
    except ValueError:
        return None
    if not isinstance(value, Mapping):
        return None
    try:
        return ResultRow(**value)
    except TypeError:  # of another version, or broken
        return None
