"""Notes in a job folder: the keys that are on disk, and tolerance of what others have written."""

from __future__ import annotations

from pathlib import Path

import pytest

from hpcbench.schemas.notes import Cancelled, Failure, Interrupted, Push, Started, Stop
from hpcbench.storage.json_files import read_json, write_json


def test_a_note_on_disk_has_its_version_the_time_and_the_keys_that_were_given(tmp_path: Path) -> None:
    file = tmp_path / "interrupted.json"
    Interrupted(step=40).write(file)
    value = read_json(file)
    assert value is not None
    assert value.keys() == {"schema_version", "at", "step"}
    note = Interrupted.read(file)
    assert note is not None
    assert (note.step, note.phase, note.at) == (40, None, value["at"])


def test_a_missing_note_is_not_there(tmp_path: Path) -> None:
    assert Stop.read(tmp_path / "stop.json") is None


@pytest.mark.parametrize("text", ["", "{", "[]", '{"fingerprint": 3}', '{"resumed_from_step": "x", "fingerprint": ""}'])
def test_a_damaged_note_is_not_there(tmp_path: Path, text: str) -> None:
    file = tmp_path / "started.json"
    file.write_text(text)
    assert Started.read(file) is None


def test_keys_of_a_later_version_are_ignored(tmp_path: Path) -> None:
    write_json(tmp_path / "push.json", {"schema_version": 2, "url": "https://hub/x", "later": [1]})
    assert Push.read(tmp_path / "push.json") == Push(schema_version=2, url="https://hub/x")


def test_notes_of_earlier_versions_are_read(tmp_path: Path) -> None:
    write_json(
        tmp_path / "cancelled.json", {"schema_version": 1, "at": "2026-11-21T00:00:00.000Z", "scheduler_id": "7"}
    )
    write_json(tmp_path / "failure.json", {"type": "ValueError", "message": "no", "hint": None, "rank": 1})
    cancelled, failure = Cancelled.read(tmp_path / "cancelled.json"), Failure.read(tmp_path / "failure.json")
    assert cancelled is not None
    assert cancelled.scheduler_id == "7"
    assert failure == Failure(type="ValueError", message="no", hint=None, rank=1)
