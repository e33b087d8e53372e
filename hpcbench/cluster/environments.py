"""Environments made: a virtual environment from a pinned list, tried before it is named in a profile.

In: a name of a list in `templates/environments/`, a folder. Out: the Python of the new environment. It installs through
pip with pip's own settings, and changes no profile.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

from hpcbench.errors import HpcbenchError, PlanError, did_you_mean
from hpcbench.schemas.environments import MIN_PYTHON
from hpcbench.storage.package_data import home_folder, shipped_file

MODULES: Final = {
    "llamafactory": "llamafactory.train.tuner",
    "ms_swift": "swift.cli.main",
    "trl": "trl.scripts.sft",
    "axolotl": "axolotl.cli.main",
}
"""Environment -> what a training there imports. unsloth and vllm need a GPU to be imported."""


def list_environments() -> dict[str, Path]:
    """Return the pinned lists by the name of their environment."""
    return {file.stem: file for file in sorted(shipped_file("templates", "environments").glob("*.txt"))}


def usual_folder(name: str) -> Path:
    """Return where an environment goes that nobody chose a folder for."""
    return home_folder(os.environ) / "venvs" / name


def create_environment(name: str, folder: Path, *, python: str | None = None, force: bool = False) -> Path:
    """Make an environment from its list and return its Python.

    Args:
        name: of the list.
        folder: which does not exist, or whose environment `force` replaces.
        python: to make it with; None is this one.
        force: remove what is in the folder, if it is a virtual environment.

    Raises:
        PlanError: there is no such list, or something is in the folder.
        HpcbenchError: it cannot be made, or what was installed cannot be imported.
    """
    lists = list_environments()
    if name not in lists:
        known = ", ".join(lists)
        hint = did_you_mean(name, lists) or f"there are {known}"
        raise PlanError(f"environment {name!r}: there is no list of its packages", hint=hint)
    if folder.exists() and any(folder.iterdir()):
        if not force or not (folder / "pyvenv.cfg").is_file():
            hint = "another --folder" + (", or --force to make it anew" if (folder / "pyvenv.cfg").is_file() else "")
            raise PlanError(f"{folder}: already exists", hint=hint)
        shutil.rmtree(folder)
    _run([python or sys.executable, "-m", "venv", str(folder)], f"{folder}: no virtual environment could be made")
    made = folder / "bin" / "python"
    version = _run([str(made), "-c", "import sys; print('%d.%d' % sys.version_info[:2])"], f"{made}: does not run")
    if tuple(int(part) for part in version.split(".")) < MIN_PYTHON:
        oldest = ".".join(map(str, MIN_PYTHON))
        raise PlanError(f"{python}: is Python {version.strip()}", hint=f"--python with Python {oldest} or newer")
    installing = [str(made), "-m", "pip", "install", "--requirement", str(lists[name])]
    if subprocess.run(installing, check=False, stdout=sys.stderr).returncode != 0:
        raise HpcbenchError(f"{folder}: pip could not install {lists[name]}", hint="its message is above")
    if name in MODULES:
        hint = "of torchvision and torchaudio PyPI has builds for CUDA alone; with a torch for the CPU remove them"
        _run([str(made), "-c", f"import {MODULES[name]}"], f"{made}: installed, and cannot be used", hint=hint)
    return made


def _run(command: list[str], failure: str, *, hint: str | None = None) -> str:
    """Run a command and return what it printed.

    Raises:
        HpcbenchError: it failed; the last line that it printed follows `failure`.
    """
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError as error:
        raise HpcbenchError(f"{failure}: {command[0]}: {error.strerror}", hint=hint) from error
    if done.returncode != 0:
        last = (done.stderr.strip() or done.stdout.strip() or f"exit code {done.returncode}").splitlines()[-1]
        raise HpcbenchError(f"{failure}: {last}", hint=hint)
    return done.stdout
