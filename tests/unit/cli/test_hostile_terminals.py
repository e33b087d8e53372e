"""Output where it cannot be shown: other encodings, closed streams, readers that leave, a folder that is gone."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

HPCBENCH = str(Path(sys.executable).with_name("hpcbench"))
ASCII = {"LC_ALL": "C", "PYTHONIOENCODING": "ascii"}


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with results of a command whose words and whose save directory no ASCII terminal can show."""
    folder = tmp_path_factory.mktemp("shell")
    value = {
        "cmd": "command",
        "device": "cpu",
        "requirements": {"gpu": 0},
        "info": {"wer": "Zoë ✓"},
        "args": {"command": ["sh", "-c", "echo 'naïve ✗'; exit 1"]},
        "experiment": [{"name": "one"}],
    }
    (folder / "suite.yaml").write_text(json.dumps(value), encoding="utf-8")
    done = shell("hpcbench submit suite.yaml --cluster local", folder, ASCII)
    assert "Traceback" not in done.stderr + done.stdout
    assert "started" in done.stdout
    return folder


def shell(line: str, cwd: Path, environ: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    words = {name: value for name, value in os.environ.items() if name not in {"TERM", "COLUMNS"}}
    words |= {"PATH": f"{Path(HPCBENCH).parent}:{os.environ['PATH']}", "HPCBENCH_SAVE_DIR": "Läufe", **(environ or {})}
    return subprocess.run(
        ["bash", "-c", f"set -o pipefail; {line}"],
        cwd=cwd,
        env=words,
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
        timeout=120,
    )


def test_an_ascii_terminal_gets_escaped_text(ran: Path) -> None:
    done = shell(
        "hpcbench status; hpcbench why; hpcbench logs one; hpcbench collect; hpcbench collect --format csv", ran, ASCII
    )
    assert "Traceback" not in done.stderr
    assert "na\\xefve \\u2717" in done.stdout
    assert "L\\xe4ufe" in done.stdout


@pytest.mark.parametrize(
    ("line", "code"),
    [
        ("hpcbench collect | true", 141),
        ("hpcbench status >&-", 0),
        ("hpcbench status 2>&-", 0),
        ("hpcbench status <&- >&- 2>&-", 0),
        ("hpcbench status nothing-like-it 2>&-", 2),
        ("hpcbench status >/dev/full", 1),
        ("hpcbench --help >&-", 0),
    ],
)
def test_streams_that_take_nothing(line: str, code: int, ran: Path) -> None:
    done = shell(line, ran)
    assert "Traceback" not in done.stderr
    assert "Exception ignored" not in done.stderr
    assert done.returncode == code, done.stderr


def test_a_full_disk_behind_standard_output_is_said(ran: Path) -> None:
    done = shell("hpcbench status >/dev/full", ran)
    assert done.stderr == ("error: No space left on device\n  hint: free space there, or name another --save-dir\n")


@pytest.mark.parametrize("verb", ["status", "submit ./suite.yaml", "demo", "init -o x.yaml", "doctor --cluster local"])
def test_a_current_folder_that_is_gone_is_said(verb: str, tmp_path: Path) -> None:
    done = shell(f"mkdir gone && cd gone && rmdir ../gone && hpcbench {verb}", tmp_path)
    assert "Traceback" not in done.stderr
    assert done.returncode in {1, 2}
    assert "error: the current folder is not there any more\n  hint: cd to a folder that is there" in done.stderr


def test_a_narrow_terminal_without_a_name_and_an_unwritable_home(ran: Path) -> None:
    environ = {"COLUMNS": "20", "HOME": "/proc/nowhere", "XDG_CACHE_HOME": "/proc/nowhere"}
    done = shell("hpcbench status && hpcbench plan suite.yaml --cluster local; hpcbench --help", ran, environ)
    assert "Traceback" not in done.stderr
    assert "one" in done.stdout


def test_completion_offers_names_that_it_cannot_spell(ran: Path) -> None:
    environ = {**ASCII, "_HPCBENCH_COMPLETE": "complete_bash", "COMP_WORDS": "hpcbench status ", "COMP_CWORD": "2"}
    done = shell("hpcbench", ran, environ)
    assert (done.returncode, done.stderr) == (0, "")
    assert "suite" in done.stdout
