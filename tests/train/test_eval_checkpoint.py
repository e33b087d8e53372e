"""Which weights an eval takes follows from its request and its train job's record."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from hpcbench.errors import WorkerError
from hpcbench.schemas.metrics import CommandMetrics
from hpcbench.schemas.states import JobState
from hpcbench.storage.json_files import read_json, write_json
from hpcbench.worker.models.checkpoint import find_weights
from tests.support import evaluations

pytestmark = pytest.mark.train


def choose(train: Path, **eval_args: Any) -> tuple[str, Path | None]:
    request = evaluations.make_request(Path("m"), "where", train_folder=str(train), eval_args=eval_args)
    checkpoint = find_weights(request)
    return checkpoint.choice, checkpoint.folder


def test_baseline_without_a_train_job() -> None:
    checkpoint = find_weights(evaluations.make_request(Path("m"), "where"))

    assert (checkpoint.choice, checkpoint.folder, checkpoint.train_metrics) == ("baseline", None, None)


def test_best_checkpoint_unless_last_is_asked_for(tmp_path: Path) -> None:
    evaluations.write_train_record(tmp_path)
    for name in ("best", "last"):
        (tmp_path / "checkpoints" / name).mkdir(parents=True)

    assert choose(tmp_path) == ("best", tmp_path / "checkpoints" / "best")
    assert choose(tmp_path, checkpoint="last") == ("last", tmp_path / "checkpoints" / "last")


def test_last_checkpoint_without_a_validation_split(tmp_path: Path) -> None:
    record = evaluations.write_train_record(tmp_path)
    value = read_json(record / "record.json")
    assert value is not None
    value["metrics"]["best_checkpoint"] = None
    write_json(record / "record.json", value)
    (tmp_path / "checkpoints" / "last").mkdir(parents=True)

    assert choose(tmp_path)[0] == "last"
    with pytest.raises(WorkerError, match="the training kept no best checkpoint"):
        choose(tmp_path, checkpoint="best")


def test_model_of_a_command(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    metrics = CommandMetrics(output_model=str(tmp_path / "out"))
    evaluations.write_train_record(tmp_path, cmd="command", metrics=metrics)

    assert choose(tmp_path) == ("output_model", tmp_path / "out")

    evaluations.write_train_record(tmp_path, cmd="command", metrics=CommandMetrics())
    with pytest.raises(WorkerError, match="the command left no model"):
        choose(tmp_path)


def test_train_job_that_is_not_completed_is_refused(tmp_path: Path) -> None:
    with pytest.raises(WorkerError, match="no record of the train job yet"):
        choose(tmp_path)

    evaluations.write_train_record(tmp_path, state=JobState.FAILED)
    with pytest.raises(WorkerError, match="the train job is failed, not completed"):
        choose(tmp_path)

    evaluations.write_train_record(tmp_path)
    with pytest.raises(WorkerError, match=r"checkpoints/best: the checkpoint is gone"):
        choose(tmp_path)
