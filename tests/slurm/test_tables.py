"""Suites of `configs/tables` on the test Slurm, scaled down: three make their tables here, all by `make demo-tables`."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from hpcbench.schemas.states import JobState
from tests.support.benchmark_tables import html_tables
from tests.support.published_tables import MODERN
from tests.support.scaled_tables import overrides, write_inputs
from tests.support.slurm_cluster.cluster import Cluster
from tests.support.slurm_suites import hpcbench, wait_until_over

pytestmark = [pytest.mark.slurm, pytest.mark.train]

ROWS = {"batch-size-modern": "batch8", "lora-rank-modern": "lora-r8-ALL", "models-modern": "lora-yi-6b-chat"}
"""Suite -> the one of its rows that runs."""
HEADERS = {
    "batch-size-modern": ["Model Type [LoRA]", "Batch Size", "Training Speed (samples/s)", "GPU Memory (GiB)"],
    "lora-rank-modern": [
        *("Model Type [LoRA]", "LoRA Rank", "LoRA Target Modules"),
        *("Training Speed (samples/s)", "GPU Memory (GiB)", "Trainable Params (M)"),
    ],
    "models-modern": ["Model Type [LoRA]", "Training Speed", "GPU Memory"],
}
SETTINGS = {
    "batch-size-modern": ["qwen2.5-7b-instruct", "8"],
    "lora-rank-modern": ["qwen2.5-7b-instruct", "8", "ALL (all linear)"],
    "models-modern": ["yi-6b-chat"],
}


def test_sweeps_make_their_tables(slurm_cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    suites = [MODERN / f"{name}.yaml" for name in ROWS]
    inputs = write_inputs(tmp_path / "inputs", suites)
    for name, value in inputs.variables.items():
        monkeypatch.setenv(name, value)
    save_dir = tmp_path / "logs"
    sets = [word for text in overrides(suites[0], inputs.folder) for word in ("--set", text)]
    only = [word for name in ROWS.values() for word in ("--only", name)]
    hpcbench(
        "submit", *map(str, suites), "--cluster", str(inputs.profile), "--save-dir", str(save_dir), *sets, *only
    )  # fmt: skip
    collection = wait_until_over(save_dir)
    assert {job.state for job in collection.jobs if job.record is not None} == {JobState.COMPLETED}
    grids = html_tables(hpcbench("collect", "--save-dir", str(save_dir), "--format", "markdown").stdout)
    found = dict(zip((suite.name for suite in collection.suites), grids, strict=True))
    assert {name: grid.header for name, grid in found.items()} == HEADERS
    for name, grid in found.items():
        (row,) = [cells for cells in grid.rows[1:] if cells[: len(SETTINGS[name])] == SETTINGS[name]]
        assert all(re.match(r"\d+\.\d\d|\d+MiB", cell) for cell in row[len(SETTINGS[name]) :])
