"""Broken suites give a plan or a clear error with exit code 2, whatever is wrong with them.

`HPCBENCH_FUZZ=10000 pytest tests/unit/cli/test_fuzz_suites.py` (or `make fuzz`) tries more of them.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.mutations import mutate_bytes, mutate_value, odd_values
from tests.support.places import GOLDEN
from tests.support.typed_commands import Ended, run_here

EXAMPLES = int(os.environ.get("HPCBENCH_FUZZ", "500"))
SEED_EXAMPLE = GOLDEN / "config" / "seed_example.json"

EXAMPLE: dict[str, Any] = json.loads(SEED_EXAMPLE.read_text(encoding="utf-8"))
SFT: dict[str, Any] = {
    **EXAMPLE,
    # The example's own model cannot be loaded any more, and plan says so.
    "args": {**EXAMPLE["args"], "model_type": "qwen1half-7b-chat"},
    "env": {"A": "b"},
    "eval_args": {"limit": 3, "gen_kwargs": {"a": 1}, "per_dataset": {"arc": {"limit": 1}}},
    "matrix": {"max_length": [512], "zip": {"batch_size": [1, 2]}, "exclude": [{"batch_size": 2}]},
    "repeats": 2,
    "device": "cuda",
    "info": {"x": [1]},
    "max_attempts": 2,
}
COMMAND: dict[str, Any] = {
    "cmd": "command",
    "device": "cpu",
    "requirements": {"gpu": 0, "cpus": 2, "mem_gb": 0.5, "time": "10m"},
    "eval_requirements": {"gpu": 0, "time": 5},
    "eval_dataset": ["score"],
    "eval_args": {"command": ["sh", "-c", "true {checkpoint}"]},
    "args": {"command": ["true", "{experiment}"], "seed": 1},
    "env": {"A": "b"},
    "experiment": [{"name": "a"}, {"name": "b", "args": {"command": "false"}, "eval_dataset": []}],
}
KEYS = [
    "name",
    "cmd",
    "args",
    "gpu",
    "ddp",
    "time",
    "model",
    "dataset",
    "command",
    "seed",
    "zip",
    "exclude",
    "x",
    "0",
    "",
    "é",
]
ODD = odd_values(KEYS)
VIEWS = ((), ("--json",), ("--script",), ("--only", "*b*"), ("--max-jobs", "1"))


def plan(file: Path, *arguments: str) -> Ended:
    return run_here("plan", str(file), "--cluster", "local", "--save-dir", str(file.parent / "logs"), *arguments)


def check(ended: Ended) -> None:
    """Check that a plan came out, or a reason why there is none."""
    assert ended.code in {0, 2}, ended
    assert "pydantic" not in ended.err + ended.out
    assert "Traceback" not in ended.err
    if ended.code == 0:
        assert ended.out.strip(), ended
    else:
        assert ended.err.strip(), ended
        assert not ended.out, ended


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("suites")


@pytest.mark.parametrize("suite", [SFT, COMMAND], ids=["sft", "command"])
def test_the_intact_suites_give_a_plan(folder: Path, suite: dict[str, Any]) -> None:
    file = folder / "intact.json"
    file.write_text(json.dumps(suite), encoding="utf-8")
    ended = plan(file)
    assert ended.code == 0, ended.err
    assert "jobs in" in ended.out


@settings(max_examples=EXAMPLES, deadline=None)
@given(data=st.data())
def test_mutated_suites_give_a_plan_or_a_clear_error(folder: Path, data: st.DataObject) -> None:
    suite = data.draw(st.sampled_from([SFT, COMMAND]))
    for _ in range(data.draw(st.integers(1, 2))):
        changed = mutate_value(data, suite, KEYS, ODD)
        suite = changed if isinstance(changed, dict) else suite
    if data.draw(st.integers(0, 4)) == 0:
        file = folder / "mutated.yaml"
        file.write_bytes(mutate_bytes(data, yaml.safe_dump(suite, allow_unicode=True).encode()))
    else:
        file = folder / "mutated.json"
        file.write_text(json.dumps(suite), encoding="utf-8")
    check(plan(file, *data.draw(st.sampled_from(VIEWS))))


@settings(max_examples=100, deadline=None)
@given(
    key=st.text("abcdefgrsx._=", max_size=12) | st.sampled_from(["args", "args.seed", "env.A", "matrix", "info.a.b"]),
    value=st.text(max_size=12),
)
def test_any_override_is_taken_or_refused(key: str, value: str) -> None:
    check(plan(SEED_EXAMPLE, "--set", f"{key}={value}"))
