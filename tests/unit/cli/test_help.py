"""The help of every verb, held equal to tests/golden/help/: a text that users read changes on purpose."""

from __future__ import annotations

import subprocess
import sys

import pytest
import typer
from typer.core import TyperGroup

from hpcbench.cli import app
from tests.conftest import Golden
from tests.support.places import GOLDEN
from tests.support.typed_commands import help_of


def list_verbs() -> list[str]:
    group = typer.main.get_command(app)
    assert isinstance(group, TyperGroup)
    return list(group.commands)


@pytest.mark.parametrize("verb", ["", *list_verbs()])
def test_the_help_of_each_verb_is_the_golden_one(verb: str, golden: Golden) -> None:
    golden(f"help/{verb or 'hpcbench'}.txt", help_of(*verb.split(), width=100))


def test_each_golden_help_belongs_to_a_verb() -> None:
    assert {file.stem for file in (GOLDEN / "help").iterdir()} == {"hpcbench", *list_verbs()}


def test_each_verb_has_a_summary_of_one_line_and_an_example_of_at_most_eighty_columns() -> None:
    for verb in list_verbs():
        text = help_of(verb)
        assert text.splitlines()[2].endswith("."), verb
        assert f"  hpcbench {verb}" in text.rpartition("Example:")[2], verb
        assert max(len(line) for line in text.splitlines()) <= 80, verb


def test_the_verbs_are_listed_in_groups() -> None:
    headings = [line for line in help_of().splitlines() if line.endswith(":") and not line.startswith(" ")]
    assert headings == ["Run:", "Watch:", "Results:", "Set up:", "Options:"]


def test_a_module_started_by_python_calls_itself_hpcbench() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "hpcbench", "status", "--no-such"], capture_output=True, text=True, check=False
    )
    assert done.stderr.startswith("Usage: hpcbench status ")
