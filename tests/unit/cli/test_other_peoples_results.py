"""A save directory of somebody else, in which this user may read and not write."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

HPCBENCH = str(Path(sys.executable).with_name("hpcbench"))


@pytest.fixture(scope="module")
def theirs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Return a folder with a suite, and its results in a save directory that cannot be written."""
    folder = tmp_path_factory.mktemp("theirs")
    value = {
        "cmd": "command",
        "device": "cpu",
        "requirements": {"gpu": 0},
        "experiment": [
            {"name": "good", "args": {"command": ["true"]}},
            {"name": "bad", "args": {"command": ["false"]}},
        ],
    }
    (folder / "suite.yaml").write_text(json.dumps(value), encoding="utf-8")
    run(folder, "submit", "suite.yaml", "--cluster", "local")
    parts = [folder / "logs", *(folder / "logs").rglob("*")]
    for path in parts:
        path.chmod(path.stat().st_mode & ~0o222)
    yield folder
    for path in parts:
        path.chmod(path.stat().st_mode | 0o200)


def run(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Run hpcbench without root's right to write everywhere."""
    drop: list[str] = []
    if os.getuid() == 0:
        if shutil.which("setpriv") is None:
            pytest.skip("root may write everywhere, and there is no setpriv")
        drop = ["setpriv", "--bounding-set", "-dac_override,-dac_read_search,-fowner"]
    environ = {**os.environ, "HPCBENCH_SAVE_DIR": "logs"}
    return subprocess.run(
        [*drop, HPCBENCH, *words], cwd=folder, env=environ, capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize(
    "words", ["status", "status --json", "why bad", "logs bad", "collect", "plan suite.yaml --cluster local"]
)
def test_it_can_be_looked_at(words: str, theirs: Path) -> None:
    done = run(theirs, *words.split())
    assert (done.returncode, done.stderr) == (0, "")


def test_what_would_write_names_the_file_and_what_helps(theirs: Path) -> None:
    done = run(theirs, "submit", "suite.yaml", "--cluster", "local", "--retry", "failed")
    assert done.returncode == 1
    assert done.stderr == (
        f"error: {theirs}/logs/suite/submissions/claim.json: Permission denied\n"
        "  hint: who owns it can allow it; results go where --save-dir says\n"
    )
