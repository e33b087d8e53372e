"""What every verb refuses or takes alike: options typed twice, words in capitals, a save directory without suites."""

from __future__ import annotations

from pathlib import Path

import pytest
import typer
from typer.core import TyperGroup, TyperOption

from hpcbench.cli import app
from hpcbench.cli.conventions import EXIT_USAGE
from hpcbench.cli.single_run.verbs import ArgumentsVerb
from hpcbench.storage.json_files import write_json
from hpcbench.storage.paths import SuitePaths
from tests.support.typed_commands import run_here


def single_options() -> list[tuple[str, str]]:
    """Return each verb's options that take one value; those of one run have a parser and a test of their own."""
    group = typer.main.get_command(app)
    assert isinstance(group, TyperGroup)
    return [
        (name, max(param.opts, key=len))
        for name, verb in group.commands.items()
        if not isinstance(verb, ArgumentsVerb)
        for param in verb.params
        if isinstance(param, TyperOption) and not param.multiple and not param.is_flag
    ]


@pytest.mark.parametrize(("verb", "option"), single_options())
def test_an_option_of_one_value_is_not_taken_twice(verb: str, option: str) -> None:
    done = run_here(verb, option, "7", option, "8")
    assert done.code == EXIT_USAGE
    assert f"hpcbench {verb}: {option}: given twice\n  hint: keep one of them" in done.err


def test_an_option_of_several_values_is_taken_as_often_as_it_is_typed(tmp_path: Path) -> None:
    done = run_here("plan", str(tmp_path / "none.yaml"), "--only", "a", "--only", "b", "--set", "a=1", "--set", "b=2")
    assert "given twice" not in done.err


@pytest.mark.parametrize(
    "words",
    [
        ["status"],
        ["status", "--json"],
        ["status", "--watch"],
        ["why"],
        ["collect"],
        ["cancel", "--all"],
        ["retry"],
        ["clean"],
        ["logs", "lora"],
        ["status", "lora"],
    ],
)
def test_a_save_directory_without_suites_is_refused(words: list[str], tmp_path: Path) -> None:
    done = run_here(*words, "--save-dir", str(tmp_path))
    assert (done.code, done.out) == (EXIT_USAGE, "")
    assert done.err.startswith(f"error: {tmp_path}: no suites found\n  hint: there are no suites; `hpcbench submit")


@pytest.mark.parametrize(
    "words",
    [
        ["status", "--state", "FAILED,Pending"],
        ["why", "--state", "Running"],
        ["clean", "--keep", "LAST"],
        ["collect", "--layout", "SWIFT"],
        ["collect", "--format", "Json"],
        ["schema", "Profile"],
    ],
)
def test_words_of_a_fixed_list_are_taken_in_any_case(words: list[str], tmp_path: Path) -> None:
    experiments = [{"name": "lora", "cmd": "sft", "jobs": ["train"]}]
    write_json(SuitePaths(tmp_path, "qwen").plan, {"suite": "qwen", "experiments": experiments})
    place = [] if words[0] == "schema" else ["--save-dir", str(tmp_path)]
    capital, small = run_here(*words, *place), run_here(*(word.lower() for word in words), *place)
    assert "unknown" not in capital.err
    assert (capital.code, capital.err) == (small.code, small.err)
