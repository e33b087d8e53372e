"""The modes of files that other libraries wrote."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from hpcbench.storage.file_modes import give_usual_modes


@pytest.mark.parametrize(("umask", "mode"), [(0o002, 0o664), (0o022, 0o644), (0o027, 0o640), (0o077, 0o600)])
def test_files_get_the_mode_that_the_umask_gives(tmp_path: Path, umask: int, mode: int) -> None:
    for name in ("weights.safetensors", "deep/model.safetensors"):
        file = tmp_path / name
        file.parent.mkdir(exist_ok=True)
        file.touch(mode=0o600)
    before = os.umask(umask)
    try:
        give_usual_modes(tmp_path)
    finally:
        os.umask(before)
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert [stat.S_IMODE(file.stat().st_mode) for file in files] == [mode, mode], "and the probe is gone"


def test_files_behind_links_keep_theirs(tmp_path: Path) -> None:
    other = tmp_path / "private.bin"
    other.touch(mode=0o600)
    folder = tmp_path / "checkpoint"
    folder.mkdir()
    (folder / "link.bin").symlink_to(other)
    give_usual_modes(folder)
    assert stat.S_IMODE(other.stat().st_mode) == 0o600
