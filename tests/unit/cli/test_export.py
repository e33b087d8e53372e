"""`export`: which trackers it knows, what it says of what it sent, and the model exports that it is not."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from hpcbench.cli.conventions import EXIT_USAGE
from hpcbench.schemas.collection import Collection
from hpcbench.tracking import Outcome
from hpcbench.tracking.runs import runs_of
from tests.support import report_cases
from tests.support.typed_commands import Ended, run_here

NAMES = "tensorboard, wandb, trackio, mlflow"
MODEL_EXPORT = "a model is exported by hpcbench export-model, or hpcbench submit SUITE, with `cmd: export` in the suite"


@pytest.fixture(autouse=True)
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Collection:
    """Let `logs` hold the results of the quickstart, whose curves are not there."""
    monkeypatch.chdir(tmp_path)
    collection = report_cases.quickstart()
    monkeypatch.setattr("hpcbench.cli.selection.gather_suites", lambda *_, **__: collection)
    return collection


def export(*words: str) -> Ended:
    return run_here("export", "--save-dir", "logs", *words)


def test_what_was_sent_is_counted_by_suite_with_the_command_that_shows_it() -> None:
    pytest.importorskip("tensorboard")
    first = export("--to", "tensorboard")
    assert (first.code, first.out) == (0, "quickstart: 4 created\nlook: tensorboard --logdir runs\n")
    assert export("--to", "TensorBoard").out.startswith("quickstart: 4 unchanged\n")
    assert sorted(path.parent.name for path in Path("runs/quickstart").rglob("events*")) == [
        "baseline", "full", "lora-r32", "lora-r4"
    ]  # fmt: skip


def test_one_project_takes_all_suites() -> None:
    pytest.importorskip("tensorboard")
    export("--to", "tensorboard", "--dir", "boards", "--project", "thesis")
    assert Path("boards/thesis/quickstart/lora-r4").is_dir()


@pytest.mark.parametrize(
    ("tracker", "look"),
    [
        ("tensorboard", "tensorboard --logdir 'my runs'"),
        ("trackio", "TRACKIO_DIR='{here}/my runs' trackio show"),
        ("mlflow", "mlflow ui --backend-store-uri 'sqlite:///{here}/my runs/mlflow.db'"),
    ],
)
def test_the_command_that_shows_results_names_their_folder(
    tracker: str, look: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, results: Collection
) -> None:
    sent = [Outcome(run=run, action="created") for run in runs_of(results)]
    monkeypatch.setattr("hpcbench.tracking.send_results", lambda *_, **__: sent)
    told = export("--to", tracker, "--dir", "my runs").out
    assert told.splitlines()[-1] == f"look: {look.format(here=tmp_path)}"


def test_json_has_a_row_per_experiment() -> None:
    pytest.importorskip("tensorboard")
    told = json.loads(export("--to", "tensorboard", "--json").out)
    assert (told["schema_version"], told["kind"], told["tracker"]) == (1, "hpcbench-export", "tensorboard")
    row = told["runs"][1]
    assert {name: row[name] for name in ("suite", "experiment", "num_points", "action")} == {
        "suite": "quickstart", "experiment": "lora-r4", "num_points": 0, "action": "created"
    }  # fmt: skip


@pytest.mark.parametrize(
    ("words", "message", "hint"),
    [
        ((), "--to is missing", MODEL_EXPORT),
        (("--to", "tensorbord"), "--to tensorbord: unknown", "did you mean 'tensorboard'?"),
        (("--ckpt_dir", "x"), "--ckpt_dir: an argument of an export of a model", MODEL_EXPORT),
    ],
)
def test_what_is_no_tracker_is_refused_with_the_way_on(words: tuple[str, ...], message: str, hint: str) -> None:
    ended = export(*words)
    assert ended.code == EXIT_USAGE
    assert ended.err.startswith(f"hpcbench export: {message}\n  expected: --to {NAMES}\n  hint: {hint}\n")


def test_a_tracker_that_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hpcbench.tracking.find_spec", lambda _: None)
    ended = export("--to", "wandb")
    assert (ended.code, ended.out) == (EXIT_USAGE, "")
    assert ended.err == "error: wandb: not installed\n  hint: pip install 'hpcbench-llm[wandb]', then the same again\n"
