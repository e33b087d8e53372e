"""A suite whose one training is under way, with steps that a test adds."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from hpcbench.schemas.collection import Collection, ExperimentView, SuiteView
from hpcbench.schemas.metrics import Metrics
from hpcbench.schemas.states import JobState
from hpcbench.storage.paths import JobPaths
from tests.support.report_parts import LORA, QWEN, make_job, train_metrics

Training = Callable[..., Collection]
FIGURES = train_metrics(trainable=1, total=2, train_loss=0.5, eval_loss=0.25, num_samples=8, train_time_s=4.0)


@pytest.fixture
def training(tmp_path: Path) -> Training:
    """Write the history of an attempt; return the suite as it is then."""

    def write(*losses: float, attempt: int = 1, first_step: int = 1, done: bool = False) -> Collection:
        paths = JobPaths(tmp_path / "logs" / "qwen" / "lora-seed0" / "train").attempt(attempt)
        paths.folder.mkdir(parents=True, exist_ok=True)
        paths.started.write_text('{"at": "2026-11-28T03:00:00+00:00"}')
        steps = [
            {"step": step, "loss": loss, "step_time_s": 0.5, "num_tokens": 100}
            for step, loss in enumerate(losses, start=first_step)
        ]
        evaluated = [{"step": first_step + len(losses) - 1, "eval_loss": 0.25}] if done else []
        paths.history.write_text("".join(f"{json.dumps(line)}\n" for line in [*steps, *evaluated]))
        metrics: Metrics | None = FIGURES if done else None
        state = JobState.COMPLETED if done else JobState.RUNNING
        job = make_job("lora-seed0", "train", suite="qwen", state=state, args=QWEN | LORA, metrics=metrics)
        job = replace(job, folder=paths.folder.parent)
        view = ExperimentView(suite="qwen", name="lora-seed0", base_experiment="lora", cmd="sft", main=job)
        return Collection(suites=(SuiteView(name="qwen", experiments=(view,)),), collected_at="now")

    return write
