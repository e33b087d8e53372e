"""Hashes of local files and folders: content decides, whatever the files are called."""

from __future__ import annotations

import os
from pathlib import Path

from hpcbench.plan.inputs import hash_inputs


def test_a_file_name_that_is_not_utf8_is_part_of_the_hash(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    before = hash_inputs({str(folder)})
    Path(os.fsdecode(os.fsencode(folder) + b"/\xff")).write_text("x", encoding="utf-8")
    assert hash_inputs({str(folder)}) != before
