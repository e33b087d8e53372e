"""A job's worker in another Python than the supervisor's: found, asked what it holds, lent hpcbench.

In: the environment's name and its Python, as the profile gives them. Out: the Python, what it holds for the record, and
the variables that start hpcbench's worker there; a WorkerError where that cannot work. It imports nothing of torch's.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import hpcbench
from hpcbench.errors import WorkerError
from hpcbench.job.environment import PACKAGES
from hpcbench.schemas.environments import MIN_PYTHON, REQUIRED, make_hint

PROBE_TIMEOUT_S = 120.0
"""A Python on a network file system that many jobs wake at once takes its time."""
NOT_INHERITED: Final = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "CONDA_PREFIX", "CONDA_DEFAULT_ENV")
"""Variables that mean the supervisor's Python and would lead another one astray."""

_PROBE: Final = """
import importlib.metadata, importlib.util, json, platform, sys
packages = {}
for name in sys.argv[1].split(","):
    try:
        packages[name] = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        pass
missing = [name for name in sys.argv[2].split(",") if importlib.util.find_spec(name) is None]
print(json.dumps({"python": platform.python_version(), "version": sys.version_info[:2],
                  "python_executable": sys.executable, "packages": packages, "missing": missing}))
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class OtherPython:
    """A Python that hpcbench's worker can be started in."""

    environment: str
    """Its name in the profile."""
    python: str
    """Absolute path."""
    facts: Mapping[str, Any]
    """`python`, `python_executable` and `packages`, for the record."""


def open_environment(name: str, environments: Mapping[str, str], environ: Mapping[str, str]) -> OtherPython:
    """Return the Python of an environment, which has been started once and holds what hpcbench's worker imports.

    Raises:
        WorkerError: the environment is not named, not there, or lacks something.
    """
    if name not in environments:
        hint = make_hint(name, "the cluster profile")
        raise WorkerError(f"the job needs an environment {name!r}, and the cluster profile names none", hint=hint)
    python = os.path.expanduser(environments[name])  # noqa: PTH111  # Path.expanduser raises without a home
    where = f"environments.{name}: {python}"
    if Path(python).is_dir():
        raise WorkerError(f"{where} is a folder", hint=f"name its Python: {python.rstrip('/')}/bin/python")
    found = _ask(python, where, name, environ)
    if tuple(found["version"]) < MIN_PYTHON:
        oldest = ".".join(map(str, MIN_PYTHON))
        raise WorkerError(f"{where} is Python {found['python']}", hint=f"make it with Python {oldest} or newer")
    if found["missing"]:
        packages = " ".join(REQUIRED[module] for module in found["missing"])
        raise WorkerError(f"{where} has no {', '.join(found['missing'])}", hint=f"{python} -m pip install {packages}")
    facts = {key: found[key] for key in ("python", "python_executable", "packages")}
    return OtherPython(environment=name, python=python, facts=facts)


def _ask(python: str, where: str, name: str, environ: Mapping[str, str]) -> dict[str, Any]:
    command = [python, "-P", "-c", _PROBE, ",".join((*PACKAGES, name)), ",".join(REQUIRED)]
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            timeout=PROBE_TIMEOUT_S,
            check=False,
            env={key: value for key, value in environ.items() if key not in NOT_INHERITED},
        )
    except OSError as error:
        hint = "name a Python that compute nodes see too; " + make_hint(name, "the cluster profile")
        raise WorkerError(f"{where} cannot be started: {error.strerror}", hint=hint) from error
    except subprocess.TimeoutExpired as error:
        hint = "the file system that it lies on may be overloaded; retry the job"
        raise WorkerError(f"{where} does not answer within {PROBE_TIMEOUT_S:.0f} s", hint=hint) from error
    if done.returncode != 0:
        # Before 3.11 there is no -P: `unknown option -P`.
        last = (done.stderr.decode(errors="replace").strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        oldest = ".".join(map(str, MIN_PYTHON))
        raise WorkerError(f"{where} does not run: {last}", hint=f"name a Python {oldest} or newer that works")
    found: dict[str, Any] = json.loads(done.stdout.decode().strip().splitlines()[-1])
    return found


def lend_hpcbench(folder: Path) -> Path:
    """Make a folder that holds nothing but this hpcbench, for another Python's path, and return it.

    The folder that hpcbench lies in may hold all packages of the usual Python, which the other must not see.
    """
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    (folder / "hpcbench").symlink_to(Path(hpcbench.__file__).absolute().parent, target_is_directory=True)
    return folder


def environment_of(
    other: OtherPython, environ: Mapping[str, str], lent: Path, *, given: Mapping[str, str]
) -> dict[str, str]:
    """Return the variables that start hpcbench's worker in another Python.

    Args:
        other: that Python.
        environ: the variables of a worker in the usual one.
        lent: the folder of `lend_hpcbench`.
        given: the experiment's own variables, which are kept whatever they mean.
    """
    kept = {name: value for name, value in environ.items() if name in given or name not in NOT_INHERITED}
    programs = str(Path(other.python).parent)  # what compiles kernels looks for ninja there
    return {
        **kept,
        "PYTHONPATH": _joined(str(lent), given.get("PYTHONPATH", "")),
        "PATH": _joined(programs, kept.get("PATH", "")),
    }


def _joined(first: str, rest: str) -> str:
    return f"{first}{os.pathsep}{rest}" if rest else first
