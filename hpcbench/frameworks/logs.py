"""What transformers' Trainer left behind, in whatever framework: its state, its summary and its checkpoints.

In: the folder of a framework's output and the log that it printed. Out: the course of the training by step, and its
figures as they are; nothing is computed that is not in the files. Unreadable files count as missing.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from hpcbench.storage.json_files import read_json
from hpcbench.storage.paths import TRAINER_STATE

_CHECKPOINT: Final = re.compile(r"checkpoint-(\d+)")
_ROW_LENGTHS: Final = re.compile(r'"train_dataset": "([0-9.]+)')
"""ms-swift's statistics of its rows: mean, deviation, least and greatest length."""
RUNTIME: Final = "train_runtime"
"""The key that only the summary at the end of a training has, in seconds."""
_PRINTED: Final = re.compile(r"\{'train_runtime'.*?\}")
_OPTIMIZER: Final = "optimizer.pt"
_SUMMARIES: Final = ("all_results.json", "train_results.json")
_LONGEST_LOG: Final = 64_000_000
"""Bytes at the end of a printed log in which its summary is looked for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Logs:
    """What a finished training said of itself."""

    num_steps: int = 0
    num_epochs: float | None = None
    num_tokens: int | None = None
    """Input tokens without padding, over all ranks."""
    counts_tokens_anew: bool = False
    """Whether a resumed training counts its tokens from zero, as TRL does; the Trainer itself goes on counting."""
    steps: Sequence[Mapping[str, float]] = ()
    """Entries of the log with `step` and `loss`."""
    evals: Sequence[Mapping[str, float]] = ()
    """Entries with `step` and `eval_loss`."""
    mean_row_tokens: float | None = None
    """Mean length of the training rows, where the framework measured it."""
    summary: Mapping[str, float] = field(default_factory=dict)
    """Figures of the end: `train_runtime`, `train_loss` and what goes with them."""

    def eval_time_s(self, after: int = 0) -> float:
        """Return the seconds of evaluations after a step, which the Trainer counts as part of its training."""
        return sum(entry.get("eval_runtime", 0.0) for entry in self.evals if entry["step"] > after)


def find_checkpoints(output: Path) -> dict[int, Path]:
    """Return the checkpoints by their step, ascending."""
    found = {}
    for folder in output.iterdir() if output.is_dir() else ():
        match = _CHECKPOINT.fullmatch(folder.name)
        if match is not None and folder.is_dir():
            found[int(match[1])] = folder
    return dict(sorted(found.items()))


def find_resumable(output: Path) -> Path | None:
    """Return the last checkpoint that a training can go on from, None where there is none.

    The Trainer writes the weights, then the optimizer, then its state: what has its state is whole.
    """
    for folder in reversed(find_checkpoints(output).values()):
        state = read_json(folder / TRAINER_STATE)
        if state is not None and any(folder.glob(_OPTIMIZER)):
            return folder
    return None


def read_logs(output: Path, printed: Path, *, log_files: Sequence[str] = ()) -> Logs:
    """Return what the training logged.

    Args:
        output: its folder, with its checkpoints.
        printed: the file with everything that it printed.
        log_files: files below `output` of JSON lines in which a framework writes its summary.
    """
    states = [
        output / TRAINER_STATE,
        *(folder / TRAINER_STATE for folder in reversed(find_checkpoints(output).values())),
    ]
    state = next((value for path in states if (value := read_json(path)) is not None), {})
    entries = [_numbers(entry) for entry in state.get("log_history") or () if isinstance(entry, dict)]
    # TRL counts tokens itself.
    tokens = state.get("num_input_tokens_seen") or max((entry.get("num_tokens", 0.0) for entry in entries), default=0.0)
    epochs = state.get("epoch")
    return Logs(
        num_steps=int(state.get("global_step") or 0),
        num_epochs=float(epochs) if isinstance(epochs, int | float) else None,
        num_tokens=int(tokens) if isinstance(tokens, int | float) and tokens > 0 else None,
        counts_tokens_anew=bool(tokens) and not state.get("num_input_tokens_seen"),
        steps=tuple(entry for entry in entries if "loss" in entry and "step" in entry),
        evals=tuple(entry for entry in entries if "eval_loss" in entry and "step" in entry),
        mean_row_tokens=_find_row_length([output / name for name in log_files]),
        summary=next(_find_summaries(output, printed, entries, log_files), {}),
    )


def _find_summaries(
    output: Path, printed: Path, entries: Sequence[Mapping[str, float]], log_files: Sequence[str]
) -> Iterator[Mapping[str, float]]:
    """Yield the figures of the end from each place that has them."""
    yield from (entry for entry in reversed(entries) if RUNTIME in entry)
    for name in _SUMMARIES:
        found = _numbers(read_json(output / name) or {})
        if RUNTIME in found:
            yield found
    for path in (output / name for name in log_files):
        lines = read_tail(path).splitlines() if path.is_file() else []
        for line in reversed(lines):
            try:
                value = json.loads(line)
            except ValueError:
                continue
            if isinstance(value, dict) and RUNTIME in value:
                yield _numbers(value)
    for text in reversed(_PRINTED.findall(read_tail(printed) if printed.is_file() else "")):
        try:
            value = ast.literal_eval(text)
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            continue
        yield _numbers(value)


def _find_row_length(paths: Sequence[Path]) -> float | None:
    """Return the mean length of the training rows in tokens."""
    found = [_ROW_LENGTHS.search(read_tail(path)) for path in paths if path.is_file()]
    return next((float(match[1]) for match in found if match is not None), None)


def read_tail(path: Path) -> str:
    """Return the end of a printed log."""
    with path.open("rb") as stream:
        size = path.stat().st_size
        stream.seek(max(0, size - _LONGEST_LOG))
        return stream.read().decode("utf-8", "replace")


def _numbers(entry: Mapping[str, Any]) -> dict[str, float]:
    """Return the finite numbers of an entry; transformers 5 prints some of them as text."""
    found = {}
    for name, value in entry.items():
        try:
            number = float(value) if isinstance(value, int | float | str) and not isinstance(value, bool) else None
        except (ValueError, OverflowError):
            continue
        if number is not None and abs(number) < float("inf"):
            found[name] = number
    return found
