"""Trainings of several ranks that share a model: compared with another training, killed, and resumed."""

from __future__ import annotations

import time
from collections.abc import Sequence

import pytest

from hpcbench.storage.paths import JobPaths
from hpcbench.worker.progress_file import read_eval_losses, read_steps
from tests.support.methods import assert_same_weights
from tests.support.tiny_models import read_history, read_metrics, read_weights, start_worker

FINGERPRINT = "f" * 64
FIGURES = ("loss", "eval_loss", "grad_norm", "num_tokens", "num_samples", "learning_rate")


def assert_alike(job: JobPaths, reference: JobPaths, *, within: float, figures: Sequence[str] = FIGURES) -> None:
    """Check that figures of each step and saved weights differ by rounding alone."""
    found, expected = read_history(job.attempt(1)), read_history(reference.attempt(1))
    assert [line["step"] for line in found] == [line["step"] for line in expected]
    for one, two in zip(found, expected, strict=True):
        for key in figures:
            assert one.get(key) == pytest.approx(two.get(key), abs=within), (one["step"], key)
    weights, wanted = read_weights(job.checkpoints / "last"), read_weights(reference.checkpoints / "last")
    assert weights.keys() == wanted.keys()
    assert all((weights[key] - wanted[key]).abs().max() < within for key in wanted)


def kill_after_step(job: JobPaths, *, step: int) -> None:
    """Start two ranks and kill their launcher, and so them, once a step is in the history."""
    launcher = start_worker(job, ddp=2)
    history, deadline = job.attempt(1).history, time.monotonic() + 300
    while not (history.exists() and f'"step": {step}' in history.read_text(encoding="utf-8")):
        assert launcher.poll() is None, job.attempt(1).log.read_text()
        assert time.monotonic() < deadline
        time.sleep(0.02)
    launcher.kill()
    launcher.wait(timeout=300)


def resume_as(reference: JobPaths, job: JobPaths) -> None:
    """Go on with a killed training; check that it ends as the reference to the last bit."""
    resumed = start_worker(job, 2, ddp=2)
    assert resumed.wait(timeout=580) == 0, job.attempt(2).log.read_text()
    assert read_metrics(job.attempt(2)).resumed_from_steps[0] > 0
    found, expected = ([(step.step, step.loss) for step in read_steps(each, FINGERPRINT)] for each in (job, reference))
    assert found == expected
    assert read_eval_losses(job, FINGERPRINT) == read_eval_losses(reference, FINGERPRINT)
    assert_same_weights(job, reference)
