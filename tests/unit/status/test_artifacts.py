"""Artifacts of jobs on disk, as reports ask for them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from hpcbench.schemas.history import History
from hpcbench.schemas.states import JobState
from hpcbench.status.artifacts import ArtifactsOnDisk
from hpcbench.storage.paths import JobPaths
from tests.support.report_parts import make_job


def test_history_samples_and_log_come_from_the_attempts(tmp_path: Path) -> None:
    attempt = JobPaths(tmp_path).attempt(1)
    attempt.folder.mkdir()
    attempt.history.write_text('{"step": 1, "loss": 2.5}\n')
    attempt.samples.write_text('{"task": "arc", "doc_id": 0, "metrics": {"acc,none": 1.0}}\n')
    attempt.log.write_text("loading\nstep 1: loss 2.5\n")
    job = replace(make_job("lora", "train", suite="s", state=JobState.RUNNING), folder=tmp_path)
    artifacts = ArtifactsOnDisk()
    assert artifacts.history(job).series("loss") == [(1, 2.5)]
    assert [(sample.task, sample.doc_id) for sample in artifacts.samples(job)] == [("arc", 0)]
    assert artifacts.log_tail(job) == ("loading", "step 1: loss 2.5")


def test_job_that_never_started_has_none(tmp_path: Path) -> None:
    job = replace(
        make_job("lora", "train", suite="s", state=JobState.PENDING), folder=tmp_path / "s" / "lora" / "train"
    )
    artifacts = ArtifactsOnDisk()
    assert artifacts.history(job) == History()
    assert list(artifacts.samples(job)) == []
    assert artifacts.log_tail(job) == ()
