"""A worker's other Python: which is taken, what it must hold, how hpcbench is lent to it, and every way it can fail."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import hpcbench
from hpcbench.errors import WorkerError
from hpcbench.job.__main__ import run_attempt
from hpcbench.job.context import JobContext
from hpcbench.job.job_claim import take_claim
from hpcbench.job.launch import build_launch
from hpcbench.job.other_python import OtherPython, environment_of, lend_hpcbench, open_environment
from hpcbench.job.stop_reason import StopRequest
from hpcbench.schemas.arguments import SftArgs
from hpcbench.schemas.environments import make_hint
from hpcbench.schemas.record import read_record
from hpcbench.schemas.request import Resources
from hpcbench.schemas.states import JobState
from tests.support.environments import make_environment
from tests.support.job_cases import array_job, experiment
from tests.unit.plan.test_plan import plan


def failure(name: str, python: str | Path | None) -> tuple[str, str]:
    """Return the message and the hint with which an environment is refused in a job."""
    with pytest.raises(WorkerError) as caught:
        open_environment(name, {} if python is None else {name: str(python)}, os.environ)
    return caught.value.message, caught.value.hint or ""


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Python that sees what this one sees, but not hpcbench."""
    return make_environment(tmp_path_factory.mktemp("environment") / "e")


def test_an_environment_that_the_profile_does_not_name_is_refused_with_how_to_make_it() -> None:
    message, hint = failure("unsloth", None)
    assert message == "the job needs an environment 'unsloth', and the cluster profile names none"
    assert hint.startswith("`hpcbench environment create unsloth` on storage that jobs see makes one")
    assert "`environments: {unsloth: ~/venvs/unsloth/bin/python}` into the cluster profile" in hint


def test_the_folder_of_an_environment_is_not_its_python(python: Path) -> None:
    folder = python.parents[1]
    assert failure("x", folder) == (f"environments.x: {folder} is a folder", f"name its Python: {folder}/bin/python")


def test_a_python_that_is_not_there_is_refused(tmp_path: Path) -> None:
    message, hint = failure("x", tmp_path / "python")
    assert message == f"environments.x: {tmp_path}/python cannot be started: No such file or directory"
    assert hint.startswith("name a Python that compute nodes see too; ")


def test_a_program_that_is_no_python_is_refused_with_what_it_says() -> None:
    message, hint = failure("x", "/bin/ls")
    assert message.startswith("environments.x: /bin/ls does not run: ")
    assert hint == "name a Python 3.11 or newer that works"


def test_what_hpcbenchs_worker_imports_is_missed_before_it_starts(tmp_path: Path) -> None:
    python = make_environment(tmp_path / "e", sees_packages=False)
    assert failure("x", python) == (
        f"environments.x: {python} has no pydantic, yaml, jinja2, PIL",
        f"{python} -m pip install pydantic pyyaml jinja2 pillow",
    )


def test_the_record_tells_of_the_other_python(python: Path) -> None:
    other = open_environment("x", {"x": str(python)}, os.environ)
    assert other.facts["python_executable"] == str(python)
    assert other.facts["packages"]["torch"]


def test_a_python_in_the_home_folder_may_be_named_by_a_tilde(python: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(python.parents[1]))
    assert open_environment("x", {"x": "~/bin/python"}, os.environ).python == str(python)


def test_the_other_python_imports_this_hpcbench_and_nothing_beside_it(python: Path, tmp_path: Path) -> None:
    lent = lend_hpcbench(tmp_path / "lent")
    assert [path.name for path in lent.iterdir()] == ["hpcbench"]
    code = "import hpcbench, hpcbench.schemas.request as r, hpcbench.catalog.models as m; print(hpcbench.__file__)"
    environ = environment_of(OtherPython(environment="x", python=str(python), facts={}), os.environ, lent, given={})
    done = subprocess.run([python, "-P", "-c", code], capture_output=True, text=True, check=True, env=environ)
    assert done.stdout.strip() == str(lent / "hpcbench" / "__init__.py")
    assert Path(done.stdout.strip()).resolve() == Path(hpcbench.__file__).resolve()


def test_what_means_the_usual_python_is_not_inherited_but_what_the_suite_sets_is() -> None:
    other = OtherPython(environment="x", python="/venvs/x/bin/python", facts={})
    inherited = {"PYTHONPATH": "/usual", "PYTHONHOME": "/usual", "VIRTUAL_ENV": "/usual", "PATH": "/bin", "A": "1"}
    assert environment_of(other, inherited, Path("/lent"), given={}) == {
        "PYTHONPATH": "/lent", "PATH": "/venvs/x/bin:/bin", "A": "1",
    }  # fmt: skip
    given = {"PYTHONPATH": "/mine", "VIRTUAL_ENV": "/mine"}
    assert environment_of(other, {**inherited, **given}, Path("/lent"), given=given) == {
        "PYTHONPATH": "/lent:/mine", "VIRTUAL_ENV": "/mine", "PATH": "/venvs/x/bin:/bin", "A": "1",
    }  # fmt: skip


@pytest.fixture
def context(tmp_path: Path) -> JobContext:
    return array_job(tmp_path)


def test_torchrun_and_its_ranks_run_in_the_other_python(context: JobContext) -> None:
    request, *_ = plan(experiment("a", requirements=Resources(gpu=2, ddp=2)))
    paths = context.paths.attempt(1)
    launch = build_launch(request, context, attempt=paths, token="t", environ={}, python="/venvs/x/bin/python")
    assert launch.argv.count("/venvs/x/bin/python") == 2
    assert sys.executable not in launch.argv


def test_a_job_without_its_environment_fails_at_once_and_says_how_to_make_one(context: JobContext) -> None:
    args = SftArgs(model_type="qwen-7b-chat", dataset=("ms-agent",), tuner_backend="unsloth")
    request, *_ = plan(experiment("a", args=args))
    claim = take_claim(context)
    assert claim is not None
    assert run_attempt(context, request, claim, checkpoint=None, stop=StopRequest()) == 1
    found = read_record(context.paths.record)
    assert found is not None
    assert found.cause is not None
    assert (found.state, found.cause.type) == (JobState.FAILED, "cannot_start")
    assert found.cause.message == "the job needs an environment 'unsloth', and the cluster profile names none"
    assert found.cause.hint == make_hint("unsloth", "the cluster profile")
