"""Environments made from pinned lists, with a stand-in for the Python that makes them."""

from __future__ import annotations

from pathlib import Path

import pytest

from hpcbench.cluster.environments import create_environment, list_environments
from hpcbench.errors import HpcbenchError, PlanError
from hpcbench.schemas.environments import PACKAGES, REQUIRED

PYTHON = """#!/bin/sh
# Makes "environments" whose Python is this script.
case "$1 $2" in
  "-m venv") mkdir -p "$3/bin"; cp "$0" "$3/bin/python"; touch "$3/pyvenv.cfg" ;;
  "-m pip") {pip} ;;
  "-c import sys"*) echo {version} ;;
  *) {use} ;;
esac
"""


def python_in(folder: Path, *, pip: str = "true", version: str = "3.11", use: str = "true") -> str:
    script = folder / "python"
    script.write_text(PYTHON.format(pip=pip, version=version, use=use))
    script.chmod(0o755)
    return str(script)


def test_each_environment_that_arguments_need_has_a_list_with_what_the_worker_imports() -> None:
    lists = list_environments()
    assert lists.keys() == PACKAGES.keys()
    for name, file in lists.items():
        lines = {line.lower().replace("_", "-") for line in file.read_text().splitlines()}
        assert PACKAGES[name].lower() in lines
        assert {line.partition("==")[0] for line in lines} >= set(REQUIRED.values())


def test_an_environment_is_made_and_its_python_returned(tmp_path: Path) -> None:
    made = create_environment("trl", tmp_path / "trl", python=python_in(tmp_path))
    assert made == tmp_path / "trl" / "bin" / "python"
    assert made.is_file()


def test_a_name_without_a_list_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PlanError) as error:
        create_environment("trll", tmp_path / "x")
    assert str(error.value) == ("environment 'trll': there is no list of its packages\n  hint: did you mean 'trl'?")


def test_a_folder_with_something_else_is_never_removed(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("x")
    with pytest.raises(PlanError) as error:
        create_environment("trl", tmp_path, force=True)
    assert str(error.value) == f"{tmp_path}: already exists\n  hint: another --folder"
    assert (tmp_path / "mine").read_text() == "x"


def test_an_environment_is_made_anew_by_force_alone(tmp_path: Path) -> None:
    folder, python = tmp_path / "trl", python_in(tmp_path)
    create_environment("trl", folder, python=python)
    (folder / "old").touch()
    with pytest.raises(PlanError) as error:
        create_environment("trl", folder, python=python)
    assert str(error.value) == f"{folder}: already exists\n  hint: another --folder, or --force to make it anew"
    create_environment("trl", folder, python=python, force=True)
    assert not (folder / "old").exists()


def test_an_old_python_is_refused(tmp_path: Path) -> None:
    python = python_in(tmp_path, version="3.10")
    with pytest.raises(PlanError) as error:
        create_environment("trl", tmp_path / "trl", python=python)
    assert str(error.value) == f"{python}: is Python 3.10\n  hint: --python with Python 3.11 or newer"


def test_packages_that_pip_cannot_install_are_named_by_their_list(tmp_path: Path) -> None:
    with pytest.raises(HpcbenchError) as error:
        create_environment("trl", tmp_path / "trl", python=python_in(tmp_path, pip="exit 1"))
    file = list_environments()["trl"]
    assert str(error.value) == f"{tmp_path}/trl: pip could not install {file}\n  hint: its message is above"


def test_what_was_installed_is_imported_before_it_is_called_made(tmp_path: Path) -> None:
    broken = "echo 'OSError: Could not load this library' >&2; exit 1"
    with pytest.raises(HpcbenchError) as error:
        create_environment("trl", tmp_path / "trl", python=python_in(tmp_path, use=broken))
    assert error.value.message == (
        f"{tmp_path}/trl/bin/python: installed, and cannot be used: OSError: Could not load this library"
    )
