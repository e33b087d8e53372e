"""What hpcbench starts for itself, in a folder of a user whose files are named as modules of Python."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from hpcbench.processes.start import module_command
from hpcbench.schemas.record import read_record
from hpcbench.schemas.states import JobState
from hpcbench.storage.paths import SuitePaths

MODULES = (
    "hpcbench.job",
    "hpcbench.worker",
    "hpcbench.worker.prefetch",
    "hpcbench.worker.hub_push",
    "hpcbench.scheduler.local.runner",
)


@pytest.fixture
def poisoned(tmp_path: Path) -> Path:
    """Return a folder that shadows the standard library, sitecustomize and the package itself."""
    folder = tmp_path / "project"
    folder.mkdir()
    names = {*sys.stdlib_module_names, "sitecustomize", "usercustomize", "yaml", "pydantic", "hpcbench"}
    for name in names:
        (folder / f"{name}.py").write_text(f"raise SystemExit('shadowed: {name}')\n", encoding="utf-8")
    return folder


@pytest.mark.parametrize("module", MODULES)
def test_no_file_of_the_folder_is_imported(poisoned: Path, module: str) -> None:
    done = subprocess.run(
        module_command(module), cwd=poisoned, input="", capture_output=True, text=True, timeout=120, check=False
    )
    assert "shadowed" not in done.stderr
    assert "hpcbench" in done.stderr, "it got as far as its own words"


def test_python_m_hpcbench_imports_none_either(tmp_path: Path) -> None:
    # What `python -m` itself imports before a line of the program runs, nobody else can decide.
    for name in ("random", "token", "select", "logging", "yaml", "typer"):
        (tmp_path / f"{name}.py").write_text(f"raise SystemExit('shadowed: {name}')\n", encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "hpcbench", "--version"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("hpcbench ")


def test_a_job_runs_and_its_program_still_finds_its_own_modules(tmp_path: Path, poisoned: Path) -> None:
    program = tmp_path / "program"
    program.mkdir()
    (program / "colorsys.py").write_text("HERE = 'mine'\n", encoding="utf-8")
    code = "import os, json, colorsys; json.dump({'mine': colorsys.HERE}, open(os.environ['HPCBENCH_METRICS'], 'w'))"
    suite = {
        "cmd": "command",
        "device": "cpu",
        "requirements": {"gpu": 0},
        "args": {"command": [sys.executable, "-c", code], "cwd": str(program)},
        "experiment": [{"name": "own-modules"}],
    }
    (poisoned / "suite.yaml").write_text(json.dumps(suite), encoding="utf-8")
    hpcbench = [str(Path(sys.executable).with_name("hpcbench")), "submit", "suite.yaml", "--cluster", "local"]
    environ = {**os.environ, "HPCBENCH_SAVE_DIR": "logs"}
    done = subprocess.run(hpcbench, cwd=poisoned, env=environ, capture_output=True, text=True, check=False)
    record = read_record(SuitePaths(poisoned / "logs", "suite").job("own-modules", "train").record)
    assert record is not None, done.stdout + done.stderr
    assert record.state is JobState.COMPLETED, record.cause
    assert record.metrics is not None
    assert record.metrics.model_dump()["values"] == {"mine": "mine"}
