"""Checkpoints on scratch: links that belong to one configuration, and nothing that fails in silence."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from hpcbench.errors import WorkerError
from hpcbench.job.disk import link_scratch
from hpcbench.plan.requests import plan_suite
from hpcbench.storage.paths import JobPaths
from tests.support.job_cases import command, experiment, suite


def make_job(root: Path) -> JobPaths:
    job = JobPaths(root / "tuners" / "lora" / "train")
    job.folder.mkdir(parents=True)
    return job


def test_large_folders_become_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("USER", "me")
    request = plan_suite(suite(experiment("lora")), save_dir=tmp_path, inputs={})[0]
    job = make_job(tmp_path / "logs")
    link_scratch(job, request, str(tmp_path / "scratch" / "$USER"))
    (job.checkpoints / "best").mkdir()
    [found] = (tmp_path / "scratch" / "me" / "tuners" / "lora").glob("train-*/checkpoints/best")
    assert found.is_dir()
    link_scratch(job, request, str(tmp_path / "scratch" / "$USER"))
    assert (job.checkpoints / "best").is_dir()


def test_a_link_that_leads_nowhere_is_in_nobodys_way(tmp_path: Path) -> None:
    request = plan_suite(suite(experiment("lora")), save_dir=tmp_path, inputs={})[0]
    job = make_job(tmp_path / "logs")
    link_scratch(job, request, str(tmp_path / "scratch"))
    shutil.rmtree(job.resume.resolve())
    link_scratch(job, request, None)
    job.resume.mkdir()


def test_what_is_there_already_stays_where_it_is(tmp_path: Path) -> None:
    request = plan_suite(suite(experiment("lora")), save_dir=tmp_path, inputs={})[0]
    job = make_job(tmp_path / "logs")
    job.resume.mkdir()
    link_scratch(job, request, str(tmp_path / "scratch"))
    assert not job.resume.is_symlink()
    assert job.checkpoints.is_symlink()


def test_only_training_leaves_checkpoints(tmp_path: Path) -> None:
    request = plan_suite(suite(command("lora")), save_dir=tmp_path, inputs={})[0]
    job = make_job(tmp_path / "logs")
    link_scratch(job, request, str(tmp_path / "scratch"))
    assert not job.checkpoints.exists()


def test_a_scratch_that_cannot_be_used_is_an_error(tmp_path: Path) -> None:
    request = plan_suite(suite(experiment("lora")), save_dir=tmp_path, inputs={})[0]
    (tmp_path / "scratch").write_text("")
    with pytest.raises(WorkerError, match="scratch"):
        link_scratch(make_job(tmp_path / "logs"), request, str(tmp_path / "scratch"))
