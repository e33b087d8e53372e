"""Prefetch: what is local is read and left alone, what cannot be had is named, and the others are still fetched."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.train

QUICKSTART = Path(__file__).parents[2] / "configs" / "quickstart"


def test_local_inputs_are_ready_and_a_missing_model_is_named(tmp_path: Path) -> None:
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
    file = tmp_path / "suite.yaml"
    file.write_text(json.dumps(suite), encoding="utf-8")
    command = [sys.executable, "-m", "hpcbench.cli", "prefetch", str(file)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr
    lines = done.stdout.splitlines()
    assert f"model here: local: {QUICKSTART / 'base'}" in lines
    assert "eval pig_latin: ready as pig_latin" in lines
    assert [line for line in lines if line.startswith("model there: failed: ")]
    assert [line for line in lines if line.endswith("2070 training and 230 validation rows")]
