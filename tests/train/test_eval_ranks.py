"""An eval on several ranks has the record of one rank: scores, hashes, samples."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from hpcbench.schemas.metrics import EvalMetrics
from hpcbench.schemas.notes import WAITS, NextTurn
from hpcbench.schemas.request import Resources
from hpcbench.storage.json_files import read_json, write_json
from hpcbench.storage.paths import AttemptPaths, JobPaths
from hpcbench.worker.evaluate import evaluate
from tests.support import evaluations
from tests.support.places import ROOT

pytestmark = [pytest.mark.train]

LETTERS = "abcdefghijk"


@pytest.fixture(autouse=True)
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Keep datasets' cache out of the user's home."""
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "datasets-cache")
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)


def write_group(folder: Path) -> None:
    """Write a task of 5 questions with choices and one of 11 answers to generate, one of whose prompts is cut."""
    choices = [{"question": f"Where is {n}?", "choices": ["north", "south"], "answer": n % 2} for n in range(5)]
    evaluations.write_task(folder, "where", choices, **evaluations.CHOICE_TASK)
    words = [{"question": letter * (400 if letter == "c" else 3), "answer": "x"} for letter in LETTERS]
    evaluations.write_task(folder, "words", words, **evaluations.GENERATION_TASK)
    group = {"group": "both", "task": ["where", "words"]}
    (folder / "both.yaml").write_text(yaml.safe_dump(group), encoding="utf-8")


def run_on_two_ranks(job: JobPaths, folder: Path) -> AttemptPaths:
    attempt = job.attempt(1)
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(folder / "hf"), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m"]
    done = subprocess.run(
        [*command, "hpcbench.worker", str(job.folder), str(attempt.folder), WAITS],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return attempt


def test_two_ranks_give_what_one_gives(tmp_path: Path) -> None:
    base = evaluations.save_model(tmp_path / "base")
    write_group(tmp_path / "tasks")
    options = {"include_path": (str(tmp_path / "tasks"),), "max_length": 300, "batch_size": "auto"}
    one = evaluations.make_request(base, "both", eval_args=options)
    two = evaluations.make_request(base, "both", eval_args=options).model_copy(
        update={"resources": Resources(gpu=0, ddp=2)}
    )
    jobs = {"one": JobPaths(tmp_path / "one"), "two": JobPaths(tmp_path / "two")}
    for name, request in (("one", one), ("two", two)):
        write_json(jobs[name].request, request.model_dump(mode="json"))
    evaluate.run(one, jobs["one"], jobs["one"].attempt(1))

    # Both ranks then take another eval with the model that they have loaded.
    next_job = JobPaths(tmp_path / "next")
    following = evaluations.make_request(base, "where", eval_args=options).model_copy(
        update={"resources": Resources(gpu=0, ddp=2)}
    )
    write_json(next_job.request, following.model_dump(mode="json"))
    next_job.attempt(1).folder.mkdir()
    turn = NextTurn(job_folder=str(next_job.folder), attempt_folder=str(next_job.attempt(1).folder))
    jobs["two"].attempt(1).folder.mkdir()
    turn.write(jobs["two"].attempt(1).next)
    shared = run_on_two_ranks(jobs["two"], tmp_path)

    alone = jobs["one"].attempt(1)
    assert shared.samples.read_text(encoding="utf-8") == alone.samples.read_text(encoding="utf-8")
    expected, found = (EvalMetrics.model_validate(read_json(each.metrics)) for each in (alone, shared))
    assert found.tasks == expected.tasks
    assert found.tasks["words"].num_prompts_cut == 1
    assert (expected.num_ranks, found.num_ranks, len(found.memory)) == (1, 2, 2)
    assert (expected.batch_size, found.batch_size) == (8, 8)
    assert expected.infer is not None
    assert found.infer is not None
    assert found.infer.num_tokens == expected.infer.num_tokens
    again = EvalMetrics.model_validate(read_json(next_job.attempt(1).metrics))
    assert again.tasks["where"].metrics == expected.tasks["where"].metrics
    assert (again.num_ranks, len(again.memory)) == (2, 2)
    assert "the model is loaded already" in next_job.attempt(1).log.read_text(encoding="utf-8")
    progress = read_json(jobs["two"].progress)
    assert progress is not None
    assert progress["phase"] == "evaluating"
