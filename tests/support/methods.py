"""Every fine-tuning method as a training's arguments, and trainings of them that several tests look at."""

from __future__ import annotations

import os
import signal
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from hpcbench.schemas.arguments import SftArgs
from hpcbench.schemas.metrics import TrainMetrics
from hpcbench.storage.json_files import read_json
from hpcbench.storage.paths import JobPaths
from tests.support.tiny_models import make_job, read_metrics, read_weights, train_here

METHODS: dict[str, dict[str, Any]] = {
    "full": {"sft_type": "full"},
    "lora": {"sft_type": "lora"},
    "lora+": {"sft_type": "lora+"},
    "rslora": {"sft_type": "rslora"},
    "dora": {"sft_type": "dora"},
    "adalora": {"sft_type": "adalora", "adalora_tfinal": 2, "adalora_deltaT": 2, "learning_rate": 0.05},
    "adapter": {"sft_type": "adapter", "adapter_length": 8},
    "ia3": {"sft_type": "ia3", "learning_rate": 0.05},
    "llamapro": {"sft_type": "llamapro", "llamapro_num_new_blocks": 2},
    "lisa": {"sft_type": "lisa", "lisa_activated_layers": 1, "lisa_step_interval": 3},
    "galore": {"sft_type": "galore", "galore_rank": 4, "galore_update_proj_gap": 3},
    "galore-embedding": {
        "sft_type": "galore", "galore_rank": 4, "galore_update_proj_gap": 3, "galore_with_embedding": "true",
    },
    "galore-each": {"sft_type": "full", "use_galore": "true", "galore_rank": "4", "galore_per_parameter": True},
    "q-galore": {
        "sft_type": "galore", "galore_rank": 4, "galore_update_proj_gap": 2, "galore_quantization": True,
        "galore_proj_quant": True, "galore_queue_size": 1, "galore_cos_threshold": 0.1,
    },
    "neftune": {"sft_type": "lora", "neftune_noise_alpha": 15.0},
    # packs of up to three samples, two packs a step
    "packing": {"sft_type": "lora", "packing": True, "max_length": 120, "batch_size": 1},
}  # fmt: skip
ARCHITECTURES = ("qwen2", "llama")
CASES = [(method, architecture) for method in METHODS for architecture in ARCHITECTURES]
ORDINARY_CASES = [case for case in CASES if "qwen2" in case or case[0] in {"full", "lora", "llamapro", "packing"}]
"""The others are left to `make test-long`: what a method does depends on the architecture by the names of its layers."""
MERGEABLE = ("lora", "lora+", "rslora", "dora", "adalora", "ia3", "neftune", "packing")
"""Whose adapter is one of peft's."""

BATCHES_PER_STEP = 2
SAVE_STEPS = 2


@dataclass(frozen=True, kw_only=True)
class Training:
    """A finished training and what its model, still in memory, says."""

    job: JobPaths
    metrics: TrainMetrics
    model: Any
    """As trained, in eval mode."""
    logits: Any


class Trainings:
    """Trains each method on each architecture once, when it is first asked for.

    Args:
        folder: of the jobs.
        bases: model folders by architecture; they have dropout.
        dataset: of 24 chats.
    """

    def __init__(self, folder: Path, bases: dict[str, Path], dataset: Path) -> None:
        self._folder, self._bases, self._dataset = folder, bases, dataset
        self._found: dict[tuple[str, str], Training] = {}

    def make_job(self, folder: Path, method: str, architecture: str) -> JobPaths:
        """Write a job of three epochs of five steps (four with packing), shuffled as always."""
        values = {**METHODS[method], "num_train_epochs": 3, "eval_steps": 5, "save_steps": SAVE_STEPS}
        return make_job(folder, self._bases[architecture], self._dataset, **values)

    def get(self, method: str, architecture: str) -> Training:
        """Return the training of a method on an architecture."""
        key = (method, architecture)
        if key not in self._found:
            job = self.make_job(self._folder / f"{method}-{architecture}", method, architecture)
            self._found[key] = train_and_look(job)
        return self._found[key]


def train_and_look(job: JobPaths) -> Training:
    """Train in this process, and keep the trained model."""
    from hpcbench.worker.train import sft

    trained: list[Any] = []
    finish = sft._finish

    def remember(*positional: Any, prepared: Any, **options: Any) -> None:
        trained.append(prepared.model)
        finish(*positional, prepared=prepared, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sft, "_finish", remember)
        metrics = read_metrics(train_here(job))
    model = trained[0].eval()
    return Training(job=job, metrics=metrics, model=model, logits=compute_logits(model))


def compute_logits(model: Any) -> Any:
    """Return the logits of some tokens, [2, 20, vocabulary]."""
    import torch

    with torch.inference_mode():
        return model(input_ids=torch.arange(40).reshape(2, 20), use_cache=False).logits.clone()


def read_args(job: JobPaths) -> SftArgs:
    """Return the arguments of a job's request."""
    return SftArgs.model_validate((read_json(job.request) or {})["args"])


def assert_same_weights(job: JobPaths, reference: JobPaths) -> None:
    """Compare the finished checkpoints of two jobs bit by bit."""
    for name in ("best", "last"):
        expected, found = read_weights(reference.checkpoints / name), read_weights(job.checkpoints / name)
        assert expected.keys() == found.keys()
        assert all((expected[key] == found[key]).all() for key in expected), name


def train_until_killed(job_folder: Path, attempt_folder: Path, num_batches: int) -> None:
    """Be the worker, which SIGKILL ends in the forward pass of its `num_batches`-th batch."""
    from hpcbench.worker import __main__ as worker
    from hpcbench.worker.measure.meter import Meter

    attempt_folder.mkdir(parents=True, exist_ok=True)
    with (attempt_folder / "worker.log").open("wb", buffering=0) as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
    count_batch, seen = Meter.count_batch, [0]

    def count_or_die(self: Meter, **counts: int) -> None:
        seen[0] += 1
        if seen[0] == num_batches:
            os.kill(os.getpid(), signal.SIGKILL)
        count_batch(self, **counts)

    Meter.count_batch = count_or_die  # type: ignore[method-assign]
    sys.exit(worker.main([str(job_folder), str(attempt_folder)]))


def write_logits(jobs: list[str], output: str) -> None:
    """Write the logits of the jobs' last checkpoints, as they are and merged, by the folders of the jobs."""
    import torch
    from safetensors.torch import save_file

    from hpcbench.worker.models import loading

    torch.set_num_threads(1)
    found = {}
    for folder in jobs:
        job = JobPaths(Path(folder))
        last = job.checkpoints / "last"
        for merge in (False, True) if (last / "adapter_config.json").exists() else (False,):
            loaded = loading.load_checkpoint(read_args(job), last, "cpu", merge=merge)
            found[f"{folder} merged" if merge else folder] = compute_logits(loaded).contiguous()
    save_file(found, output)
