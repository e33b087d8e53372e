"""What trackers hold after an export, read with their own libraries: every point once, whenever it was sent."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from hpcbench.errors import ReportError
from hpcbench.schemas.collection import Collection
from hpcbench.tracking import TRACKERS, send_results
from hpcbench.tracking.runs import runs_of
from tests.unit.tracking.conftest import Training

# MLflow 3.17 uses what SQLAlchemy 2.1 warns of.
LIBRARIES_WARN = pytest.mark.filterwarnings("ignore")


def send(name: str, collection: Collection, folder: Path) -> list[str]:
    return [outcome.action for outcome in send_results(collection, TRACKERS[name], folder=str(folder))]


class _Tracker:
    """One tracker's store, read by its own library: the steps and values of train/loss, and the last of a result."""

    name = ""

    def losses(self, folder: Path) -> list[tuple[int, float]]:
        raise NotImplementedError

    def result(self, folder: Path) -> float:
        raise NotImplementedError

    def setting(self, folder: Path) -> str:
        raise NotImplementedError


class _TensorBoard(_Tracker):
    name = "tensorboard"

    def _events(self, folder: Path) -> Any:
        reader = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
        return reader.EventAccumulator(str(folder / "qwen" / "lora-seed0")).Reload()

    def losses(self, folder: Path) -> list[tuple[int, float]]:
        return [(event.step, event.value) for event in self._events(folder).Scalars("train/loss")]

    def result(self, folder: Path) -> float:
        return float(self._events(folder).Scalars("result/eval_loss")[-1].value)

    def setting(self, folder: Path) -> str:
        data = pytest.importorskip("tensorboard.plugins.hparams.plugin_data_pb2").HParamsPluginData
        content = self._events(folder).SummaryMetadata("_hparams_/session_start_info").plugin_data.content
        return f"{data.FromString(content).session_start_info.hparams['lora_rank'].number_value:g}"


class _Trackio(_Tracker):
    name = "trackio"

    def _logs(self) -> list[dict[str, Any]]:
        from trackio.sqlite_storage import SQLiteStorage

        return list(SQLiteStorage.get_logs("qwen", "lora-seed0"))

    def losses(self, folder: Path) -> list[tuple[int, float]]:  # noqa: ARG002
        return [(row["step"], row["train/loss"]) for row in self._logs() if "train/loss" in row]

    def result(self, folder: Path) -> float:  # noqa: ARG002
        (value,) = [row["result/eval_loss"] for row in self._logs() if "result/eval_loss" in row]
        return float(value)

    def setting(self, folder: Path) -> str:  # noqa: ARG002
        from trackio.sqlite_storage import SQLiteStorage

        config = SQLiteStorage.get_run_config("qwen", "lora-seed0") or {}
        return str(config["lora_rank"])


class _MLflow(_Tracker):
    name = "mlflow"

    def _run(self, folder: Path) -> tuple[Any, Any]:
        client = pytest.importorskip("mlflow.tracking").MlflowClient(f"sqlite:///{folder}/mlflow.db")
        (run,) = client.search_runs([client.get_experiment_by_name("qwen").experiment_id])
        return client, run

    def losses(self, folder: Path) -> list[tuple[int, float]]:
        client, run = self._run(folder)
        return [(metric.step, metric.value) for metric in client.get_metric_history(run.info.run_id, "train/loss")]

    def result(self, folder: Path) -> float:
        client, run = self._run(folder)
        assert run.info.status == "FINISHED"
        (metric,) = client.get_metric_history(run.info.run_id, "result/eval_loss")
        return float(metric.value)

    def setting(self, folder: Path) -> str:
        return str(self._run(folder)[1].data.params["lora_rank"])


@pytest.fixture(params=[_TensorBoard(), _Trackio(), _MLflow()], ids=lambda tracker: tracker.name)
def tracker(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> _Tracker:
    found: _Tracker = request.param
    pytest.importorskip(TRACKERS[found.name].module)
    if found.name == "trackio":  # which reads it once, when it is imported
        from trackio import sqlite_storage

        monkeypatch.setattr(sqlite_storage, "TRACKIO_DIR", tmp_path / "out")
    return found


@LIBRARIES_WARN
def test_what_was_sent_in_parts_is_held_once_and_steps_done_again_replace_the_first(
    tracker: _Tracker, training: Training, tmp_path: Path
) -> None:
    folder = tmp_path / "out"
    steps = (4.0, 3.0, 2.0, 1.0)
    assert send(tracker.name, training(*steps[:3]), folder) == ["created"]
    assert send(tracker.name, training(*steps[:3]), folder) == ["unchanged"]
    assert tracker.losses(folder) == [(1, 4.0), (2, 3.0)]
    assert send(tracker.name, training(*steps, done=True), folder) == ["added"]
    assert send(tracker.name, training(*steps, done=True), folder) == ["unchanged"]
    assert tracker.losses(folder) == [(1, 4.0), (2, 3.0), (3, 2.0), (4, 1.0)]
    assert tracker.result(folder) == 0.25
    assert tracker.setting(folder) == "8"

    done_again = training(2.5, 1.5, attempt=2, first_step=3, done=True)
    assert send(tracker.name, done_again, folder) == ["replaced"]
    assert tracker.losses(folder) == [(1, 4.0), (2, 3.0), (3, 2.5), (4, 1.5)]


@LIBRARIES_WARN
def test_experiments_of_one_name_in_two_suites_share_a_project(
    tracker: _Tracker, training: Training, tmp_path: Path
) -> None:
    (suite,) = training(2.0, 1.0, done=True).suites
    (view,) = suite.experiments
    other = replace(suite, name="llama", experiments=(replace(view, suite="llama"),))
    both = Collection(suites=(suite, other), collected_at="now")
    sent = [
        [
            outcome.action
            for outcome in send_results(both, TRACKERS[tracker.name], folder=str(tmp_path / "out"), project="p")
        ]
        for _ in range(2)
    ]
    assert sent == [["created", "created"], ["unchanged", "unchanged"]]


@LIBRARIES_WARN
def test_a_result_whose_name_mlflow_does_not_take_is_sent_once(training: Training, tmp_path: Path) -> None:
    pytest.importorskip("mlflow")
    from hpcbench.tracking.mlflow import send as send_runs

    runs = [replace(run, results={"result/humaneval_pass@1": 0.5}) for run in runs_of(training(1.0, done=True))]
    actions = [[outcome.action for outcome in send_runs(runs, folder=str(tmp_path), project=None)] for _ in range(2)]
    assert actions == [["created"], ["unchanged"]]


def test_what_a_library_refuses_is_told_in_its_words(
    training: Training, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mlflow = pytest.importorskip("mlflow.exceptions")

    def refuse(*_: object, **__: object) -> None:
        raise mlflow.MlflowException("The experiment 1 must be in the 'active' state.")

    monkeypatch.setattr("hpcbench.tracking.mlflow.send", refuse)
    with pytest.raises(ReportError, match="mlflow: The experiment 1 must be"):
        send("mlflow", training(1.0), tmp_path)


def test_event_files_of_the_same_runs_are_the_same(training: Training, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    collection = training(2.0, 1.0, done=True)
    for name in ("a", "b"):
        send("tensorboard", collection, tmp_path / name)
    (first,), (second,) = (list((tmp_path / name).rglob("events*")) for name in ("a", "b"))
    assert first.read_bytes() == second.read_bytes()


class _Wandb:
    """Stands for wandb where the test counts calls: offline it holds nothing that could be read back by run."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, list[int]]] = []
        self.summary: dict[str, float] = {}

    def init(self, *, id: str, **_: object) -> _Wandb:  # noqa: A002
        self.calls.append((id, []))
        return self

    def log(self, figures: Mapping[str, float], step: int) -> None:
        assert figures
        self.calls[-1][1].append(step)

    def finish(self, exit_code: int) -> None:
        assert exit_code == 0

    def Settings(self, **_: object) -> None:  # noqa: N802
        return None


def test_wandb_gets_the_steps_since_and_another_run_where_they_were_done_again(
    training: Training, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("wandb")
    there = _Wandb()
    monkeypatch.setitem(__import__("sys").modules, "wandb", there)
    monkeypatch.setattr("hpcbench.tracking.find_spec", lambda _: there)

    def steps(collections: Iterable[Collection]) -> list[list[int]]:
        there.calls.clear()
        for collection in collections:
            send("wandb", collection, tmp_path / "out")
        return [steps for _, steps in there.calls]

    first = training(4.0, 3.0, 2.0, 1.0)
    assert steps([first, first]) == [[1, 2, 3]]
    done = training(4.0, 3.0, 2.0, 1.0, done=True)
    assert steps([done, done]) == [[4]]
    (name, _) = there.calls[0]
    assert steps([training(2.5, 1.5, attempt=2, first_step=3, done=True)]) == [[1, 2, 3, 4]]
    assert there.calls[0][0] == name.removesuffix("-1") + "-2"


def test_wandb_offline_leaves_a_run_to_sync(
    training: Training, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    assert send("wandb", training(2.0, 1.0, done=True), tmp_path) == ["created"]
    (run,) = tmp_path.glob("wandb/offline-run-*/run-*-1.wandb")
    assert run.stat().st_size > 0


def test_a_library_that_is_not_installed_is_named(training: Training, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hpcbench.tracking.find_spec", lambda _: None)
    with pytest.raises(ReportError) as error:
        list(send_results(training(1.0), TRACKERS["mlflow"]))
    assert str(error.value) == (
        "mlflow: not installed\n  hint: pip install 'hpcbench-llm[mlflow]', then the same again"
    )
