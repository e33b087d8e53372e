"""Trainings by other frameworks: through a stand-in of TRL's command line, and really (long), beside hpcbench's own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from hpcbench.schemas.metrics import EvalMetrics, TrainMetrics
from hpcbench.schemas.record import Record, read_record
from hpcbench.schemas.states import JobState
from hpcbench.storage.paths import JobPaths, SuitePaths
from tests.support.environments import make_environment

pytestmark = pytest.mark.train
ROOT = Path(__file__).parents[2]
TRL_STAND_IN = '''#!{python}
"""What `trl sft --config FILE` leaves: one checkpoint of an adapter as peft saves it, and the Trainer's state."""

import json
import sys
from pathlib import Path

import yaml

settings = yaml.safe_load(Path(sys.argv[sys.argv.index("--config") + 1]).read_text())
rows = [json.loads(line) for line in (Path(settings["dataset_name"]) / "train.jsonl").read_text().splitlines()]
assert rows[0]["prompt"][-1]["role"] == "user" and rows[0]["completion"][0]["role"] == "assistant"

import numpy as np
from safetensors.numpy import save_file

folder = Path(settings["output_dir"]) / "checkpoint-4"
folder.mkdir(parents=True)
(folder / "adapter_config.json").write_text("{{}}")
save_file({{"q_proj.lora_A.weight": np.zeros((2, 8), dtype=np.float32)}}, folder / "adapter_model.safetensors")
log = [
    {{"step": 2, "epoch": 0.5, "loss": 3.0, "learning_rate": 0.1, "num_tokens": 100}},
    {{"step": 4, "epoch": 1.0, "loss": 2.0, "learning_rate": 0.0, "num_tokens": 200}},
    {{"step": 4, "epoch": 1.0, "eval_loss": 2.5, "eval_runtime": 1.0}},
]
(folder / "trainer_state.json").write_text(json.dumps({{"global_step": 4, "epoch": 1.0, "log_history": log}}))
print({{"train_runtime": "5.0", "train_loss": "2.5", "epoch": "1.0"}})
'''
SUITE = """\
cmd: trl
device: cpu
requirements: {{gpu: 0, ddp: 1, mem_gb: 4}}
eval_requirements: {{gpu: 0, mem_gb: 4}}
env: {{OMP_NUM_THREADS: "1"}}
args:
  model_id_or_path: {model}
  dataset: {dataset}
  dataset_test_ratio: 0.1
  max_length: 128
  dtype: fp32
  batch_size: 2
  gradient_accumulation_steps: 1
  learning_rate: 5e-3
  lora_target_modules: [q_proj, v_proj]
  lora_rank: 2
experiment:
  - {{name: good}}
"""


def submit(folder: Path, text: str, environments: dict[str, Path]) -> dict[str, Record]:
    """Run a suite on this machine with these environments; return its records by experiment and job."""
    profiles = folder / "config" / "hpcbench" / "clusters"
    profiles.mkdir(parents=True, exist_ok=True)
    named = {name: str(python) for name, python in environments.items()}
    (profiles / "local.yaml").write_text(json.dumps({"environments": named}))
    (folder / "demo.yaml").write_text(text)
    command = [sys.executable, "-m", "hpcbench", "submit", "demo.yaml", "--cluster", "local", "--save-dir", "logs"]
    environ = {**os.environ, "XDG_CONFIG_HOME": str(folder / "config")}
    done = subprocess.run(command, cwd=folder, env=environ, capture_output=True, text=True, check=False)
    paths = SuitePaths(folder / "logs", "demo")
    files = [JobPaths(path.parent) for path in paths.folder.glob("*/*/record.json")]
    found = {f"{job.folder.parent.name}/{job.folder.name}": read_record(job.record) for job in files}
    assert found, done.stdout + done.stderr
    return {name: record for name, record in found.items() if record is not None}


def test_a_frameworks_training_leaves_what_others_leave(tmp_path: Path, base_model: Path, chats: Path) -> None:
    python = make_environment(tmp_path / "environment")
    program = python.parent / "trl"
    program.write_text(TRL_STAND_IN.format(python=python))
    program.chmod(0o755)
    records = submit(tmp_path, SUITE.format(model=base_model, dataset=chats), {"trl": python})
    good = records["good/train"]
    assert good.state is JobState.COMPLETED, good.cause
    metrics = good.metrics
    assert isinstance(metrics, TrainMetrics)
    assert (metrics.num_steps, metrics.num_tokens, metrics.eval_loss) == (4, 200, 2.5)
    assert (metrics.train_loss, metrics.train_time_s) == (2.5, 4.0)
    assert metrics.best_checkpoint == metrics.last_checkpoint == "checkpoints/checkpoint-4"
    assert metrics.parameters.trainable == 16 < metrics.parameters.total
    assert metrics.memory[0].host_rss_gib is not None
    assert metrics.unknown["mfu"] == "not measured inside TRL"
    assert good.environment["python_executable"] == str(python)
    lines = (SuitePaths(tmp_path / "logs", "demo").job("good", "train").attempt(1).history).read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [2, 4, 4]


NAMES = ("hpcbench", "trl", "ms_swift")
SIDE_BY_SIDE = """\
cmd: sft
device: cpu
requirements: {{gpu: 0, ddp: 1, mem_gb: 4}}
eval_requirements: {{gpu: 0, mem_gb: 4}}
eval_dataset: [pig_latin]
eval_args: {{include_path: {quickstart}/tasks, apply_chat_template: true, batch_size: 64}}
env: {{OMP_NUM_THREADS: "1"}}
args:
  model_type: pig-latin-base
  model_id_or_path: {quickstart}/base
  dataset: {quickstart}/train.jsonl
  val_dataset: {quickstart}/val.jsonl
  dtype: fp32
  batch_size: 32
  gradient_accumulation_steps: 1
  max_length: 128
  max_steps: 60
  eval_steps: 30
  logging_steps: 10
  learning_rate: 3e-3
  lora_target_modules: ALL
  lora_rank: 32
  lora_alpha: 128
  dataloader_num_workers: 0
experiment:
  - {{name: hpcbench}}
  - {{name: trl, cmd: trl}}
  - {{name: ms_swift, cmd: ms_swift, args: {{framework_args: {{model_type: qwen2, template: qwen2_5}}}}}}
"""


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_frameworks_train_beside_hpcbench(tmp_path: Path) -> None:
    environments = {name: make_with_the_verb(name, tmp_path) for name in ("trl", "ms_swift")}
    records = submit(tmp_path, SIDE_BY_SIDE.format(quickstart=ROOT / "configs" / "quickstart"), environments)
    causes = {name: record.cause for name, record in records.items()}
    trained = {name: record.metrics for name, record in records.items() if isinstance(record.metrics, TrainMetrics)}
    scores = {name: record.metrics for name, record in records.items() if isinstance(record.metrics, EvalMetrics)}
    assert trained.keys() == {f"{name}/train" for name in NAMES}, causes
    assert scores.keys() == {f"{name}/eval-pig_latin" for name in NAMES}, causes
    own, trl, ms_swift = (trained[f"{name}/train"] for name in NAMES)
    for metrics in trained.values():
        assert (metrics.num_steps, metrics.parameters) == (60, own.parameters)
        assert metrics.memory[0].host_rss_gib is not None
        assert metrics.samples_per_second is not None
    # The same rows by the same template; their order differs.
    assert trl.num_tokens == pytest.approx(own.num_tokens, rel=0.01)
    assert trl.train_loss == pytest.approx(own.train_loss, rel=0.1)
    # ms-swift's template has a system prompt and other roles than this tokenizer's, which the record says.
    assert "template_type" in ms_swift.deviations
    report = subprocess.run(
        [sys.executable, "-m", "hpcbench", "collect", "--save-dir", "logs"],
        cwd=tmp_path, capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    print(report)
    for name in NAMES:
        assert f"| {name}" in report


def make_with_the_verb(name: str, folder: Path) -> Path:
    """Return the Python of an environment that `hpcbench environment create` makes."""
    command = [sys.executable, "-m", "hpcbench", "environment", "create", name, "--folder", str(folder / name)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return folder / name / "bin" / "python"
