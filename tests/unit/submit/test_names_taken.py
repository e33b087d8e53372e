"""Names of experiments that were submitted by 0.2 stay, so that none of them runs again."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from hpcbench.schemas.suite_folder import names_taken
from hpcbench.storage.json_files import write_json
from hpcbench.storage.paths import SuitePaths, folder_name
from tests.support.typed_commands import run_here

SUITE = """
cmd: command
device: cpu
requirements: {gpu: 0}
args: {command: ["true"]}
repeats: 2
matrix: {env.LEARNING_RATE_OF_THE_DECODER: [1e-4, 5e-5], env.WEIGHT_DECAY: [0.1, 0.2]}
experiment: [{name: decoder}]
"""
FIRST = "decoder-env.LEARNING_RATE_OF_THE_DECODER=1e-4-env.WEIGHT_DECAY=0.1"


def planned(folder: Path) -> list[str]:
    done = run_here(
        "plan", str(folder / "demo.yaml"), "--cluster", "local", "--save-dir", str(folder / "logs"), "--json"
    )
    assert done.code == 0
    (suite,) = json.loads(done.out)
    return list(dict.fromkeys(job["experiment"] for job in suite["jobs"]))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "demo.yaml").write_text(SUITE, encoding="utf-8")
    return tmp_path


def test_a_new_suite_has_short_keys_where_whole_ones_would_be_cut(folder: Path) -> None:
    assert planned(folder)[:3] == [
        "decoder-LEARNING_RATE_OF_THE_DECODER=1e-4-WEIGHT_DECAY=0.1-seed0",
        "decoder-LEARNING_RATE_OF_THE_DECODER=1e-4-WEIGHT_DECAY=0.1-seed1",
        "decoder-LEARNING_RATE_OF_THE_DECODER=1e-4-WEIGHT_DECAY=0.2-seed0",
    ]


def test_a_suite_that_was_planned_keeps_its_names(folder: Path) -> None:
    base = folder_name(FIRST)
    old = [folder_name(f"{base}-seed{number}") for number in (0, 1)]
    experiments = [{"name": name, "base_experiment": base, "cmd": "command", "jobs": ["train"]} for name in old]
    write_json(SuitePaths(folder / "logs", "demo").plan, {"suite": "demo", "experiments": experiments})
    assert planned(folder)[:3] == [*old, "decoder-LEARNING_RATE_OF_THE_DECODER=1e-4-WEIGHT_DECAY=0.2-seed0"]


def test_folders_are_names_that_are_taken_and_so_are_groups_of_repeats(tmp_path: Path) -> None:
    assert names_taken(tmp_path, "demo") == frozenset()
    (tmp_path / "demo" / "gone").mkdir(parents=True)
    experiments = [{"name": "a-seed0", "base_experiment": "a", "cmd": "sft", "jobs": ["train"]}]
    write_json(SuitePaths(tmp_path, "demo").plan, {"suite": "demo", "experiments": experiments})
    assert {"gone", "a-seed0", "a"} <= names_taken(tmp_path, "demo")
