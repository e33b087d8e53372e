"""The README's table of methods: its rows are those of the documents, and each says what the code does."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from hpcbench.config.loading import load_suites
from hpcbench.errors import ConfigError
from tests.support.method_rows import CPU, GPU, LATER, NEEDS, SECTIONS, TUNERS, Row, all_rows, render
from tests.support.methods import METHODS
from tests.support.places import ROOT
from tests.support.swift_suites import SUITES

ROWS = tuple(all_rows())
TOP = frozenset({"cmd", "device", "requirements", "eval_requirements", "eval_dataset", "eval_args"})
BEGIN, END = "## Every method\n", "\n## "


def suite_of(row: Row, folder: Path) -> Path:
    """Write the suite of one experiment that asks for a row."""
    asked: dict[str, Any] = yaml.safe_load(f"{{{row.ask}}}")
    document: dict[str, Any] = {"cmd": "sft", **{key: value for key, value in asked.items() if key in TOP}}
    args = {key: value for key, value in asked.items() if key not in TOP}
    needs_model = document["cmd"] != "command"
    usual = {"model_type": "qwen2.5-7b-instruct", "dataset": "ms-agent"} if needs_model else {"cwd": str(folder)}
    document |= {"args": {**usual, **args}, "experiment": [{"name": "a"}]}
    file = folder / "row.yaml"
    file.write_text(yaml.safe_dump(document))
    return file


@pytest.mark.parametrize("row", [row for row in ROWS if row.plans is not None], ids=lambda row: row.name)
def test_plan_takes_a_row_that_works_and_refuses_the_others(row: Row, tmp_path: Path) -> None:
    file = suite_of(row, tmp_path)
    if row.plans:
        load_suites([file])
        return
    with pytest.raises(ConfigError):
        load_suites([file])


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_a_row_that_works_names_a_test_that_exists_and_each_other_what_it_needs(row: Row) -> None:
    if row.test:
        file, _, function = row.test.partition("::")
        text = (ROOT / file).read_text(encoding="utf-8")
        assert re.search(rf"^ *def {function}\(", text, re.MULTILINE), row.test
    assert not row.method or row.method in METHODS
    if row.state == CPU:
        assert row.test
        assert row.plans is not False
    else:
        assert row.state == GPU or NEEDS in row.state
    assert (row.state == LATER) <= (row.plans is False)


def test_every_row_of_the_published_table_of_tuners_is_there() -> None:
    document = json.loads((SUITES / "swift-2.0" / "tuner.json").read_text(encoding="utf-8"))
    assert {experiment["name"] for experiment in document["experiment"]} <= {row.name for row in TUNERS.rows}


def test_every_method_that_is_tested_has_a_row() -> None:
    assert METHODS.keys() <= {row.method for row in ROWS}


def test_no_row_stands_twice_and_none_is_empty() -> None:
    for section in SECTIONS:
        names = [row.name for row in section.rows]
        assert len(names) == len(set(names))
    assert all(row.name and row.ask and row.state for row in ROWS)


def test_the_readme_shows_the_table(pytestconfig: pytest.Config) -> None:
    path = ROOT / "README.md"
    text = path.read_text(encoding="utf-8")
    before, rest = text.split(BEGIN, 1)
    section, after = rest.split(END, 1)
    said = section.split("\n| row |", 1)[0]
    wanted = f"{said}\n{render()}"
    if pytestconfig.getoption("--update-golden"):
        path.write_text(f"{before}{BEGIN}{wanted}{END}{after}", encoding="utf-8")
    else:
        assert section == wanted, "run pytest --update-golden"
