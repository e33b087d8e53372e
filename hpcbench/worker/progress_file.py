"""What a running training writes down: progress for people, history for the record.

In: phases, steps, losses. Out: `progress.json` (rewritten now and then, only for display) and `history.jsonl` (append
only, the source of all figures). Rank 0 alone writes; reading forgives a torn last line, which a kill leaves behind.
"""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from hpcbench.schemas.notes import Started
from hpcbench.storage.clock import now_text
from hpcbench.storage.json_files import JsonObject, write_json
from hpcbench.storage.paths import AttemptPaths, JobPaths
from hpcbench.worker.measure.formulas import Step, latest_by_step

Phase = Literal["loading", "tokenizing", "training", "evaluating", "answering", "merging", "quantizing", "saving"]
PROGRESS_INTERVAL_S = 15.0
SCHEMA_VERSION = 1


class Progress:
    """Writes `progress.json` at every change of phase and every 15 s between, on rank 0; elsewhere it does nothing."""

    def __init__(self, job: JobPaths, *, rank: int = 0) -> None:
        self._path = job.progress if rank == 0 else None
        self._values: dict[str, Any] = {"phase": "loading"}
        self._written_at = -math.inf

    def update(self, phase: Phase, **values: float | None) -> None:
        """Take new values; write them when the phase changed or the last file is old."""
        changed = phase != self._values["phase"] or self._written_at == -math.inf
        self._values.update(values, phase=phase)
        if self._path is None or (not changed and time.monotonic() - self._written_at < PROGRESS_INTERVAL_S):
            return
        self._written_at = time.monotonic()
        finite = {key: _finite(value) for key, value in self._values.items()}
        write_json(self._path, {"schema_version": SCHEMA_VERSION, **finite, "updated_at": now_text()}, sync=False)


class History:
    """Appends one JSON object per line to an attempt's `history.jsonl`; without a path it does nothing."""

    def __init__(self, path: Path | None) -> None:
        self._stream = None if path is None else path.open("a", encoding="utf-8")

    def append(self, values: Mapping[str, float | None]) -> None:
        """Write one line; losses that are not finite become null."""
        if self._stream is not None:
            finite = {key: _finite(value) for key, value in values.items()}
            self._stream.write(json.dumps(finite, allow_nan=False) + "\n")
            self._stream.flush()

    def sync(self) -> None:
        """Flush to disk: a checkpoint must never be newer than the history before it."""
        if self._stream is not None:
            os.fsync(self._stream.fileno())

    def close(self) -> None:
        """Close the file."""
        if self._stream is not None:
            self._stream.close()


def list_attempts(job: JobPaths, fingerprint: str) -> list[tuple[AttemptPaths, int]]:
    """Return (paths, step resumed from) of each attempt that started training this very configuration."""
    notes = [(attempt, Started.read(attempt.started)) for attempt in job.attempts()]
    return [(attempt, note.resumed_from_step) for attempt, note in notes if note and note.fingerprint == fingerprint]


def read_steps(job: JobPaths, fingerprint: str) -> list[Step]:
    """Return every optimizer step once, in order, from the latest attempt that made it."""
    steps: list[Step] = []
    for attempt, _ in list_attempts(job, fingerprint):
        steps += [_to_step(line, attempt.number) for line in _read_lines(attempt.history) if "num_tokens" in line]
    return latest_by_step(steps)


def read_eval_losses(job: JobPaths, fingerprint: str) -> dict[int, float | None]:
    """Return the eval_loss of every evaluated step, in order."""
    return read_figure(job, fingerprint, "eval_loss")


def read_figure(job: JobPaths, fingerprint: str, key: str) -> dict[int, float | None]:
    """Return a figure of every step that has it, in order, the latest attempt's where there are several."""
    found: dict[int, float | None] = {}
    for attempt, _ in list_attempts(job, fingerprint):
        for line in _read_lines(attempt.history):
            if key in line:
                found[int(line["step"])] = line[key]
    return dict(sorted(found.items()))


def _to_step(line: JsonObject, attempt: int) -> Step:
    return Step(
        step=int(line["step"]),
        loss=line["loss"],
        step_time_s=float(line["step_time_s"]),
        num_tokens=int(line["num_tokens"]),
        num_samples=int(line["num_samples"]),
        attempt=attempt,
    )


def _read_lines(path: Path) -> list[JsonObject]:
    try:
        # A kill may have cut the last character in two.
        text = path.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return []
    lines = []
    for line in text.splitlines():
        try:
            value = json.loads(line)
        except ValueError:
            continue
        if isinstance(value, dict) and isinstance(value.get("step"), int):
            lines.append(value)
    return lines


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value
