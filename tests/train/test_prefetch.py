"""Prefetch: what is local is read and left alone, what cannot be had is named, and the others are still fetched."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.places import QUICKSTART

pytestmark = pytest.mark.train


def write_suite(folder: Path) -> Path:
    """Write a suite whose inputs are local, but for one model."""
    suite = {
        "cmd": "sft",
        "device": "cpu",
        "eval_dataset": ["pig_latin"],
        "eval_args": {"include_path": str(QUICKSTART / "tasks")},
        "args": {
            "model_type": "here",
            "model_id_or_path": str(QUICKSTART / "base"),
            "dataset": str(QUICKSTART / "train.jsonl"),
            "dataset_test_ratio": 0.1,
        },
        "experiment": [
            {"name": "here"},
            {"name": "there", "args": {"model_type": "there", "model_id_or_path": "no-such-org/no-such-model"}},
        ],
    }
    file = folder / "suite.yaml"
    file.write_text(json.dumps(suite), encoding="utf-8")
    return file


def run(*arguments: str) -> str:
    """Run the command line, which finds one model missing, and return what it printed."""
    command = [sys.executable, "-m", "hpcbench", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr
    return done.stdout


def test_local_inputs_are_ready_and_a_missing_model_is_named(tmp_path: Path) -> None:
    lines = run("prefetch", str(write_suite(tmp_path))).splitlines()
    assert f"model {QUICKSTART / 'base'}: local: {QUICKSTART / 'base'}" in lines
    assert "eval pig_latin: ready as pig_latin" in lines
    assert [line for line in lines if line.startswith("model no-such-org/no-such-model: failed: ")]
    assert [line for line in lines if line.endswith("2070 training and 230 validation rows")]


def test_doctor_looks_for_what_suites_read_without_downloading(tmp_path: Path) -> None:
    file = write_suite(tmp_path)
    place = ["--cluster", "local", "--no-job", "--json", "--save-dir", str(tmp_path / "logs")]
    checks = {check["name"]: check for check in json.loads(run("doctor", str(file), *place))["checks"]}
    assert checks[f"model {QUICKSTART / 'base'}"]["message"] == f"here: {QUICKSTART / 'base'}"
    assert checks["eval pig_latin"]["level"] == "ok"
    assert checks["model no-such-org/no-such-model"]["level"] == "error"
    assert checks["model no-such-org/no-such-model"]["remedy"].startswith(f"hpcbench prefetch {file}")
