"""Two suite files of one name and one save directory: one report must not show the results of both."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from hpcbench.cli.conventions import EXIT_USAGE
from tests.support.typed_commands import Ended, run_here


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HPCBENCH_SAVE_DIR", "logs")
    return tmp_path


def write(file: str, *experiments: str) -> str:
    value = {
        "cmd": "command",
        "device": "cpu",
        "requirements": {"gpu": 0},
        "args": {"command": ["true"]},
        "experiment": [{"name": name} for name in experiments],
    }
    Path(file).parent.mkdir(exist_ok=True)
    Path(file).write_text(json.dumps(value), encoding="utf-8")
    return file


def submit(file: str, *more: str, verb: str = "submit") -> Ended:
    return run_here(verb, file, "--cluster", "local", *more)


@pytest.mark.parametrize("verb", ["submit", "plan"])
def test_another_file_is_refused_with_both_named(verb: str, folder: Path) -> None:
    assert submit(write("a/tuners.yaml", "lora")).code == 0
    done = submit(write("b/tuners.yaml", "full"), verb=verb)
    assert done.code == EXIT_USAGE
    assert done.err == (
        f"error: {folder}/logs/tuners: holds the results of {folder}/a/tuners.yaml, and {folder}/b/tuners.yaml is "
        "another suite of the same name\n"
        "  hint: rename one of the files, name another --save-dir, or go on with this one with --force\n"
    )


@pytest.mark.parametrize("remedy", ["--force", "--save-dir", "rename"])
def test_each_remedy_of_the_hint_works(remedy: str) -> None:
    assert submit(write("a/tuners.yaml", "lora")).code == 0
    file = write("b/others.yaml" if remedy == "rename" else "b/tuners.yaml", "full")
    more = {"--force": ["--force"], "--save-dir": ["--save-dir", "elsewhere"], "rename": []}[remedy]
    done = submit(file, *more)
    assert (done.code, done.err) == (0, "")
    assert "1 job submitted" in done.out


def test_a_file_that_was_moved_or_copied_is_the_same_suite() -> None:
    assert submit(write("a/tuners.yaml", "lora")).code == 0
    assert "0 jobs submitted" in submit(write("copy/tuners.yaml", "lora")).out
    Path("copy").rename("moved")
    assert "1 job submitted" in submit(write("moved/tuners.yaml", "lora", "full")).out
