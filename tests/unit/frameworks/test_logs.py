"""What frameworks logged of a training of 60 steps, read from the files that they left (recorded 2026-11)."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from hpcbench.frameworks import RECIPES
from hpcbench.frameworks.logs import Logs, find_resumable, read_logs
from tests.support.places import RECORDED

PRINTED = """
{'loss': '0.1433', 'grad_norm': '0.9456', 'learning_rate': '2.278e-06', 'num_tokens': '6.428e+04', 'epoch': '0.8333'}
{'train_runtime': '32.98', 'train_samples_per_second': '58.22', 'train_loss': '1.089', 'epoch': '0.8333'}
Training completed.
"""
"""The end of what TRL prints, which alone has its summary."""


def logs_of(framework: str, folder: Path) -> Logs:
    printed = folder / "output.log"
    printed.write_text(PRINTED if framework == "trl" else "")
    recipe = next(recipe for recipe in RECIPES.values() if recipe.name == framework)
    return read_logs(RECORDED / "frameworks" / framework, printed, log_files=recipe.logs)


@pytest.mark.parametrize(
    ("framework", "num_tokens", "runtime", "train_loss"),
    [("trl", 64276, 32.98, 1.089), ("llamafactory", 64276, 32.8625, 1.0914), ("ms_swift", None, 43.83, 1.586)],
)
def test_a_finished_training_is_read_from_its_own_files(
    framework: str, num_tokens: int | None, runtime: float, train_loss: float, tmp_path: Path
) -> None:
    logs = logs_of(framework, tmp_path)
    assert (logs.num_steps, logs.num_tokens) == (60, num_tokens)
    assert logs.num_epochs == pytest.approx(60 / 72)
    assert [entry["step"] for entry in logs.steps][-3:] == [40, 50, 60]
    assert [entry["step"] for entry in logs.evals] == [30, 60]
    assert logs.summary["train_runtime"] == pytest.approx(runtime, abs=0.01)
    assert logs.summary["train_loss"] == pytest.approx(train_loss, abs=1e-3)
    assert logs.eval_time_s() > logs.eval_time_s(after=30) > 0


def test_ms_swift_measures_the_length_of_its_rows(tmp_path: Path) -> None:
    assert logs_of("ms_swift", tmp_path).mean_row_tokens == 64.0


def test_a_framework_that_left_nothing_logged_nothing(tmp_path: Path) -> None:
    assert read_logs(tmp_path / "nothing", tmp_path / "none.log") == Logs()


def test_broken_files_count_as_missing(tmp_path: Path) -> None:
    (tmp_path / "checkpoint-3").mkdir()
    (tmp_path / "checkpoint-3" / "trainer_state.json").write_text("{")
    (tmp_path / "logging.jsonl").write_text('{"train_runtime": ')
    (tmp_path / "output.log").write_text("{'train_runtime': open('x')}")
    assert read_logs(tmp_path, tmp_path / "output.log", log_files=["logging.jsonl"]) == Logs()


def test_a_training_goes_on_from_the_last_whole_checkpoint(tmp_path: Path) -> None:
    for step, files in ((10, ("trainer_state.json", "optimizer.pt")), (20, ("optimizer.pt",)), (30, ())):
        folder = tmp_path / f"checkpoint-{step}"
        folder.mkdir()
        for name in files:
            (folder / name).write_text(json.dumps({"global_step": step}))
    assert find_resumable(tmp_path) == tmp_path / "checkpoint-10"
    shutil.rmtree(tmp_path / "checkpoint-10")
    assert find_resumable(tmp_path) is None
