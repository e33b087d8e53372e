"""A training in an environment of its own: a second Python, to which hpcbench is lent, as the local queue starts it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from hpcbench.errors import WorkerError
from hpcbench.schemas.metrics import TrainMetrics
from hpcbench.schemas.record import Record, read_record
from hpcbench.schemas.states import JobState
from hpcbench.storage.paths import SuitePaths
from hpcbench.worker.models import unsloth_backend
from hpcbench.worker.requirements import LibraryMissingError
from tests.support.environments import UNSLOTH_STAND_IN, make_environment

pytestmark = pytest.mark.train

SUITE = """
cmd: sft
device: cpu
requirements: {{gpu: 0, ddp: 1}}
args:
  model_id_or_path: {model}
  dataset: {dataset}
  dataset_test_ratio: 0.17
  max_length: 128
  dtype: fp32
  batch_size: 2
  gradient_accumulation_steps: 1
  max_steps: 4
  eval_steps: 4
  learning_rate: 5e-3
  lora_target_modules: ALL
  tuner_backend: unsloth
experiment:
{experiments}
"""


def run_suite(folder: Path, python: Path, model: Path, chats: Path, *experiments: str) -> dict[str, Record]:
    """Run a suite on this machine with `python` as its environment unsloth; return the records of its trainings."""
    profiles = folder / "config" / "hpcbench" / "clusters"
    profiles.mkdir(parents=True)
    (profiles / "local.yaml").write_text(f"environments: {{unsloth: {python}}}\n")
    suite = folder / "demo.yaml"
    lines = "\n".join(f"  - {experiment}" for experiment in experiments)
    suite.write_text(SUITE.format(model=model, dataset=chats, experiments=lines))
    command = [sys.executable, "-m", "hpcbench", "submit", str(suite), "--cluster", "local", "--save-dir", "logs"]
    environ = {**os.environ, "XDG_CONFIG_HOME": str(folder / "config")}
    done = subprocess.run(command, cwd=folder, env=environ, capture_output=True, text=True, check=False)
    paths = SuitePaths(folder / "logs", "demo")
    names = [path.parents[1].name for path in paths.folder.glob("*/train/record.json")]
    records = {name: read_record(paths.job(name, "train").record) for name in names}
    found = {name: record for name, record in records.items() if record is not None}
    assert found, done.stdout + done.stderr
    return found


def test_a_training_with_unsloth_runs_in_its_python_and_leaves_what_others_leave(
    tmp_path: Path, base_model: Path, chats: Path
) -> None:
    python = make_environment(tmp_path / "environment", unsloth=UNSLOTH_STAND_IN)
    record = run_suite(tmp_path, python, base_model, chats, "{name: a}")["a"]
    assert record.state is JobState.COMPLETED, record.cause
    assert record.environment["python_executable"] == str(python)
    assert record.environment["packages"]["torch"]
    metrics = record.metrics
    assert isinstance(metrics, TrainMetrics)
    job = SuitePaths(tmp_path / "logs", "demo").job("a", "train")
    assert metrics.best_checkpoint == "checkpoints/best"
    assert (job.folder / "checkpoints" / "best" / "adapter_config.json").is_file()
    assert metrics.tokens_per_second is not None
    assert metrics.eval_loss is not None


def test_an_unsloth_that_does_not_work_is_named_with_its_python(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "unsloth.py").write_text("raise RuntimeError('operator torchvision::nms does not exist')")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(LibraryMissingError) as caught:
        unsloth_backend.import_first()
    assert caught.value.message == (
        f"tuner_backend: unsloth cannot be imported by {sys.executable}: operator torchvision::nms does not exist"
    )
    assert (caught.value.hint or "").startswith(f"{sys.executable} -m pip install unsloth==")


def test_a_model_that_unsloth_hands_out_as_it_is_is_refused() -> None:
    with pytest.raises(WorkerError, match="unsloth has nothing of its own for Linear"):
        unsloth_backend.check_took_effect(torch.nn.Linear(2, 2))


UNSLOTH_PYTHON = os.environ.get("HPCBENCH_UNSLOTH_PYTHON", "")


@pytest.mark.long
@pytest.mark.skipif(not UNSLOTH_PYTHON, reason="HPCBENCH_UNSLOTH_PYTHON names no Python with unsloth")
def test_unsloth_itself_trains_to_the_losses_of_peft(tmp_path: Path, base_model: Path, chats: Path) -> None:
    experiments = [
        f"{{name: {name}-{backend}, args: {{{args}, tuner_backend: {backend}}}}}"
        for name, args in (
            ("lora", "sft_type: lora"),
            ("full", "sft_type: full, gradient_checkpointing: true"),
            ("plus", "lora_lr_ratio: 16, use_rslora: true"),
        )
        for backend in ("unsloth", "peft")
    ]
    records = run_suite(tmp_path, Path(UNSLOTH_PYTHON), base_model, chats, *experiments)
    losses = {}
    for name, record in records.items():
        assert record.state is JobState.COMPLETED, (name, record.cause)
        assert isinstance(record.metrics, TrainMetrics)
        losses[name] = (record.metrics.train_loss, record.metrics.eval_loss)
        assert ("unsloth" in record.environment["packages"]) is name.endswith("unsloth")
    for name in ("lora", "full", "plus"):
        assert losses[f"{name}-unsloth"] == pytest.approx(losses[f"{name}-peft"], rel=1e-3)
