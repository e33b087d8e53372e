"""The built wheel, installed alone: the login node's verbs work without torch and without a checkout."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from hpcbench import __version__
from tests.support.places import ROOT


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the wheel, install it into an empty environment, and return the environment's folder of programs."""
    folder = tmp_path_factory.mktemp("wheel")
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    run([*pip, "wheel", "--no-deps", "--wheel-dir", str(folder), str(ROOT)], folder)
    [wheel] = folder.glob("hpcbench_llm-*.whl")
    run([sys.executable, "-m", "venv", "--without-pip", str(folder / "venv")], folder)
    python = folder / "venv" / "bin" / "python"
    run([*pip, "--python", str(python), "install", "--constraint", str(ROOT / "constraints.txt"), str(wheel)], folder)
    return python.parent


def run(command: list[str], folder: Path) -> str:
    """Run a program outside the checkout, free of what points Python into it; return its output."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "COVERAGE_"))}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_wheel_works_alone(installed: Path, tmp_path: Path) -> None:
    # One test, so that two processes of pytest-xdist do not both build and install.
    program, python = str(installed / "hpcbench"), str(installed / "python")
    assert __version__ in run([program, "--version"], tmp_path)
    assert "submit" in run([program, "--help"], tmp_path)
    assert "submit" in run([python, "-m", "hpcbench", "--help"], tmp_path)
    assert "quickstart" in run([program, "demo", "--help"], tmp_path)

    code = "from pathlib import Path; import hpcbench; print(Path(hpcbench.__file__).parent)"
    package = Path(run([python, "-c", code], tmp_path).strip())
    assert package.is_relative_to(installed.parent)
    suite = package / "_shipped" / "configs" / "quickstart.yaml"
    plan = run([program, "plan", str(suite), "--cluster", "local", "--script"], tmp_path)
    assert "7 jobs in 3 submissions" in plan
    assert str(ROOT) not in plan

    code = "import importlib.util as u; print([n for n in ('torch', 'transformers', 'datasets') if u.find_spec(n)])"
    assert run([python, "-c", code], tmp_path).strip() == "[]"
