"""Eval datasets have lm-eval's names, whatever they hold; their jobs have names that are folders."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import pytest
from pydantic import TypeAdapter

from hpcbench.config import eval_tasks
from hpcbench.config.names import eval_name_error
from hpcbench.plan.arrays import KEY_LIMIT, make_key
from hpcbench.schemas.collection import matches
from hpcbench.schemas.request import eval_job_name
from hpcbench.schemas.states import JobState
from hpcbench.storage.paths import FolderName
from tests.support.job_cases import experiment, view
from tests.support.suite_writer import HEAD, load_one, refusal
from tests.unit.plan.test_plan import plan

FOLDER = TypeAdapter(FolderName)
LONG = "persona_believes-it-knows-better-than-humans-about-how-the-system-should-behave"
IN_BRACKETS = "tmmluplus_education_(profession_level)"
ODD_NAMES = [LONG, IN_BRACKETS, "my task", "org/task", "../up", "$(touch PWNED)", "问答", "a,b", "-x", ".", "x" * 255]


@pytest.mark.parametrize("name", ODD_NAMES)
def test_an_odd_name_is_taken_and_its_folder_is_safe(name: str) -> None:
    job = eval_job_name(name)

    assert eval_name_error(name) is None
    assert FOLDER.validate_python(job) == job
    assert re.fullmatch(r"[A-Za-z0-9._-]+", make_key("suite", job))
    assert len(make_key("suite", job)) <= KEY_LIMIT


@pytest.mark.parametrize(
    ("name", "job"),
    [
        ("gsm8k", "eval-gsm8k"),
        ("ceval-valid", "eval-ceval-valid"),
        ("x" * 64, "eval-" + "x" * 64),
        (IN_BRACKETS, "eval-tmmluplus_education_profession_level-365d40ff"),
        (LONG, "eval-persona_believes-it-knows-better-than-humans-about-how--25ad72c1"),
    ],
)
def test_a_plain_name_keeps_its_folder_and_others_are_readable(name: str, job: str) -> None:
    assert eval_job_name(name) == job


def test_every_name_of_lm_eval_is_taken_and_has_a_folder_to_itself() -> None:
    if importlib.util.find_spec("lm_eval") is None:
        pytest.skip("lm-eval is not installed")
    names = _names_of_lm_eval()

    assert len(names) > 10_000
    assert [name for name in names if eval_name_error(name) is not None] == []
    jobs = {eval_job_name(name).lower() for name in names}
    assert len(jobs) == len(names)
    for job in jobs:
        FOLDER.validate_python(job)


def _names_of_lm_eval() -> set[str]:
    """Return the tasks and groups that lm-eval's files name in a line of their own, without importing it."""
    spec = importlib.util.find_spec("lm_eval")
    assert spec is not None
    assert spec.submodule_search_locations
    root = Path(spec.submodule_search_locations[0]) / "tasks"
    line = re.compile(r"^(?:task|group): *[\"']?([^\n\"'\[{#]+?)[\"']? *$", re.MULTILINE)
    return {name for file in root.rglob("*.yaml") for name in line.findall(file.read_text(encoding="utf-8"))}


def test_a_suite_takes_names_with_spaces_in_a_list(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(eval_tasks, "is_installed", lambda _: False)
    text = f"{HEAD}eval_dataset: ['{IN_BRACKETS}', 'my task']\nexperiment: [{{name: a}}]\n"

    assert load_one(tmp_path, text).eval_dataset == (IN_BRACKETS, "my task")


@pytest.mark.parametrize(
    ("names", "words"),
    [
        ("[gsm8k, gsm8k]", "'gsm8k' is listed twice"),
        ("[Foo, foo]", "'Foo' and 'foo' differ in capitals alone, and would share a folder"),
        ("['']", "an empty name"),
        ("[' a']", "the name ' a' starts or ends with a space"),
        ('["a\\nb"]', "the name 'a\\nb' holds characters that cannot be printed"),
        (f"[{'x' * 256}]", "a name of 256 characters"),
    ],
)
def test_a_name_that_cannot_be_is_refused(tmp_path: Path, names: str, words: str) -> None:
    assert words in refusal(tmp_path, f"{HEAD}eval_dataset: {names}\nexperiment: [{{name: a}}]\n")


@pytest.mark.parametrize(
    ("pattern", "is_meant"),
    [
        (f"tuners/a/eval-{IN_BRACKETS}", True),
        (f"a/eval-{IN_BRACKETS}", True),
        (f"a/{eval_job_name(IN_BRACKETS)}", True),
        ("a/eval-tmmluplus_*_level)", True),
        ("a/eval-tmmluplus_education", False),
    ],
)
def test_a_job_is_chosen_by_its_evals_whole_name_too(pattern: str, is_meant: bool) -> None:
    request = plan(experiment("a", eval_dataset=(IN_BRACKETS,)))[-1]

    assert matches(view(request, JobState.COMPLETED), pattern) is is_meant
