"""Every fine-tuning method on both tiny architectures: it learns, survives SIGKILL, reloads and is evaluated."""

from __future__ import annotations

import functools
import multiprocessing
import os
import random
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import Any

import pytest
import torch

from hpcbench.storage.json_files import read_json
from hpcbench.storage.paths import JobPaths
from hpcbench.worker.data.samples import encode_samples, load_splits
from hpcbench.worker.data.templates import Template
from hpcbench.worker.measure.loss import mean_cross_entropy
from hpcbench.worker.progress_file import read_eval_losses, read_steps
from hpcbench.worker.train import trainer as trainer_module
from tests.support import evaluations
from tests.support.methods import (
    BATCHES_PER_STEP,
    CASES,
    MERGEABLE,
    ORDINARY_CASES,
    SAVE_STEPS,
    Training,
    Trainings,
    assert_same_weights,
    read_args,
    train_until_killed,
)
from tests.support.places import ROOT
from tests.support.tiny_models import make_llama_folder, read_history, read_metrics, train_here
from tests.train.test_evaluate import CHOICES, read_samples, run_eval

pytestmark = [
    pytest.mark.train,
    pytest.mark.parametrize(
        ("method", "architecture"),
        [pytest.param(*case, marks=() if case in ORDINARY_CASES else pytest.mark.long) for case in CASES],
    ),
]

FINGERPRINT = "f" * 64


@pytest.fixture(scope="module")
def trainings(tmp_path_factory: pytest.TempPathFactory, base_model: Path, chats: Path) -> Trainings:
    root = tmp_path_factory.mktemp("methods")
    llama = make_llama_folder(root / "llama", dropout=0.1)
    return Trainings(root, {"qwen2": base_model, "llama": llama}, chats)


@pytest.fixture(scope="module")
def processes() -> Iterator[ForkServerContext]:
    """Processes that are forked from one which has imported the libraries and done nothing else."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["hpcbench.worker.train.sft", "peft.tuners.lora", "tests.support.methods"])
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")
        patch.setenv("HF_HUB_OFFLINE", "1")
        # The forkserver takes the environment of the first process.
        starter = context.Process(target=os.getpid)
        starter.start()
        starter.join()
        yield context


@pytest.fixture(autouse=True)
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Keep datasets' cache out of the user's home."""
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path_factory.getbasetemp() / "datasets-cache")
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)


def losses(job: JobPaths) -> list[float | None]:
    return [step.loss for step in read_steps(job, FINGERPRINT)]


def test_a_method_learns_and_resumes_to_the_last_bit(
    tmp_path: Path, trainings: Trainings, processes: ForkServerContext, method: str, architecture: str
) -> None:
    """Killed at a random step, on Qwen2 stopped at another too, with dropout and shuffling on."""
    job = trainings.make_job(tmp_path / "job", method, architecture)
    num_batches = random.randint(2 * BATCHES_PER_STEP + 1, 9 * BATCHES_PER_STEP)
    killed = processes.Process(
        target=train_until_killed, args=(job.folder, job.attempt(1).folder, num_batches), daemon=True
    )
    killed.start()
    reference = trainings.get(method, architecture)
    found = [loss for loss in losses(reference.job) if loss is not None]
    evals = read_eval_losses(reference.job, FINGERPRINT)
    num_steps = reference.metrics.num_steps
    assert len(found) == num_steps
    assert sum(found[-3:]) < sum(found[:3])
    assert (evals[num_steps] or 0.0) < (evals[5] or 0.0)

    killed.join(timeout=300)
    where = f"killed in batch {num_batches}: {job.attempt(1).folder / 'worker.log'}"
    assert killed.exitcode == -signal.SIGKILL, where
    num_done = sum("loss" in line for line in read_history(job.attempt(1)))
    assert 2 <= num_done <= (num_batches - 1) // BATCHES_PER_STEP + 2, where
    resumed = num_done - num_done % SAVE_STEPS
    expected = [resumed]
    if architecture == "qwen2":
        expected.append(random.randint(resumed + 1, num_steps - 1))
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(
                trainer_module,
                "stop_requested",
                lambda attempt: sum("loss" in line for line in read_history(attempt)) + resumed >= expected[1] - 1,
            )
            assert read_json(train_here(job, 2).interrupted) is not None
    metrics = read_metrics(train_here(job, 3))
    assert metrics.resumed_from_steps == tuple(expected), where
    assert losses(job) == losses(reference.job), where
    assert read_eval_losses(job, FINGERPRINT) == evals, where
    assert metrics.train_loss == reference.metrics.train_loss
    assert (metrics.num_samples, metrics.num_tokens) == (60, reference.metrics.num_tokens)
    assert_same_weights(job, reference.job)


@pytest.fixture(scope="module")
def fresh_logits(
    trainings: Trainings, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str, str], dict[str, torch.Tensor]]:
    """Logits of all last checkpoints, from a process that has trained nothing: one for ordinary cases, one for long."""
    from safetensors.torch import load_file

    @functools.cache
    def compute(*, ordinary: bool) -> dict[str, torch.Tensor]:
        jobs = [str(trainings.get(*case).job.folder) for case in CASES if (case in ORDINARY_CASES) is ordinary]
        output = tmp_path_factory.mktemp("fresh") / "logits.safetensors"
        code = f"from tests.support.methods import write_logits\nwrite_logits({jobs!r}, {str(output)!r})"
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
        subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment, check=True, timeout=300)
        return load_file(output)

    return lambda *case: compute(ordinary=case in ORDINARY_CASES)


def test_a_fresh_process_computes_the_trained_models_logits(
    trainings: Trainings,
    fresh_logits: Callable[[str, str], dict[str, torch.Tensor]],
    tokenizer: Any,
    method: str,
    architecture: str,
) -> None:
    training = trainings.get(method, architecture)
    folder, logits = str(training.job.folder), fresh_logits(method, architecture)
    assert (logits[folder] == training.logits).all()
    assert (f"{folder} merged" in logits) == (method in MERGEABLE)
    if method in MERGEABLE:
        torch.testing.assert_close(logits[f"{folder} merged"], training.logits, atol=1e-4, rtol=1e-4)
    args = read_args(training.job)
    rows = encode_samples(load_splits(args).validation, Template.from_args(args, tokenizer)).rows
    loss, _ = mean_cross_entropy(training.model, rows, 2, "cpu")
    assert loss == pytest.approx(training.metrics.last_eval_loss, abs=1e-6)


def expected_logprobs(training: Training, tokenizer: Any, samples: list[dict[str, Any]]) -> torch.Tensor:
    """Return what the trained model gives each choice after each prompt, one sequence at a time."""
    found = []
    for sample in samples:
        for choice in CHOICES:
            prompt, answer = tokenizer(sample["prompt"])["input_ids"], tokenizer(choice)["input_ids"]
            ids = torch.tensor([[*prompt, *answer]])
            with torch.inference_mode():
                scores = training.model(input_ids=ids, use_cache=False).logits[0].log_softmax(-1)
            found.append(sum(float(scores[len(prompt) - 1 + i, token]) for i, token in enumerate(answer)))
    return torch.tensor(found).reshape(len(samples), len(CHOICES))


def test_lm_eval_scores_with_the_trained_model(
    tmp_path: Path, trainings: Trainings, tokenizer: Any, method: str, architecture: str
) -> None:
    questions = [{"question": f"Where is city {n}?", "choices": CHOICES, "answer": n % 4} for n in range(3)]
    evaluations.write_task(tmp_path / "tasks", "where", questions, **evaluations.CHOICE_TASK)
    training = trainings.get(method, architecture)
    evaluations.write_train_record(training.job.folder)
    request = evaluations.make_request(
        Path(read_args(training.job).model_id_or_path or ""),
        "where",
        train_folder=str(training.job.folder),
        eval_args={"include_path": (str(tmp_path / "tasks"),), "checkpoint": "last"},
    )
    metrics = run_eval(tmp_path / "eval", request)
    assert metrics.tasks["where"].num_samples == 3
    samples = sorted(read_samples(tmp_path / "eval"), key=lambda row: int(row["doc_id"]))
    found = torch.tensor([[choice[0] for choice in sample["responses"]["none"]] for sample in samples])
    torch.testing.assert_close(found, expected_logprobs(training, tokenizer, samples), atol=1e-3, rtol=1e-4)
