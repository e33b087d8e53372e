"""Figures of another framework's training that went on from a checkpoint."""

from __future__ import annotations

from pathlib import Path

import pytest

from hpcbench.frameworks import RECIPES, Run
from hpcbench.frameworks.logs import Logs
from hpcbench.frameworks.recipe import WrittenRows
from hpcbench.schemas.arguments import SftArgs
from hpcbench.schemas.metrics import TrainMetrics
from hpcbench.storage.paths import JobPaths
from hpcbench.worker.framework.figures import Measured, assemble_metrics

LOGS = Logs(
    num_steps=100,
    num_epochs=1.0,
    num_tokens=30_000,
    counts_tokens_anew=True,
    evals=({"step": 50, "eval_loss": 2.0, "eval_runtime": 40.0}, {"step": 100, "eval_loss": 1.0, "eval_runtime": 2.0}),
    summary={"train_runtime": 12.0, "train_loss": 0.3},
)
"""Of TRL, whose last attempt began at step 50."""


def metrics_of(folder: Path, *, resumed_from: int) -> TrainMetrics:
    args = SftArgs(model_id_or_path="/models/base", sft_type="full", batch_size=1, gradient_accumulation_steps=1)
    run = Run(args=args, model=folder, rows=folder, output=folder, num_train_rows=100, num_val_rows=1)
    rows = WrittenRows(num_train=100, num_val=1, tokens=None, template="chat")
    measured = Measured(peak_rss_bytes=1, wall_time_s=20.0)
    return assemble_metrics(
        RECIPES["trl"], run, JobPaths(folder), rows=rows, logs=LOGS, measured=measured, num_base=1, extra={},
        resumed_from=resumed_from,
    )  # fmt: skip


def test_a_resumed_training_has_the_speed_of_its_last_attempt_and_no_sums(tmp_path: Path) -> None:
    metrics = metrics_of(tmp_path, resumed_from=50)
    # 50 of 100 samples, in 12 s less the one evaluation of this attempt.
    assert metrics.samples_per_second == pytest.approx(5.0)
    assert (metrics.train_time_s, metrics.train_loss, metrics.num_tokens, metrics.tokens_per_second) == (None,) * 4
    assert metrics.unknown["train_loss"] == "TRL says it of its last attempt alone, which resumed at step 50"


def test_a_training_in_one_attempt_has_them_all(tmp_path: Path) -> None:
    metrics = metrics_of(tmp_path, resumed_from=0)
    assert (metrics.train_loss, metrics.num_tokens) == (0.3, 30_000)
    assert metrics.train_time_s == 0.0  # these logs have more evaluation than training
