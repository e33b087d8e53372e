"""A whole job of every method of peft, and of the arguments that change what lora and full train.

Each is stopped on the way and goes on to the last bit, is evaluated, and a fresh load computes the trained logits.
"""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest

from hpcbench.storage.json_files import read_json
from hpcbench.storage.paths import JobPaths
from hpcbench.worker.models import loading
from hpcbench.worker.progress_file import read_eval_losses, read_steps
from hpcbench.worker.train import trainer as trainer_module
from tests.support import evaluations
from tests.support.methods import assert_same_weights, compute_logits, read_args, train_and_look
from tests.support.peft_trainings import LLAMA_ONLY, PEFT_METHODS, WITH_ARGUMENTS
from tests.support.tiny_models import make_job, make_llama_folder, read_history, read_metrics, train_here
from tests.train.test_evaluate import CHOICES, run_eval

# peft warns of what does not matter here: norms as targets, no CUDA extension for boft, sparse tensors of frod.
pytestmark = [pytest.mark.train, pytest.mark.long, pytest.mark.filterwarnings("ignore")]

FINGERPRINT = "f" * 64
TRAININGS = {**PEFT_METHODS, **WITH_ARGUMENTS}


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_llama_folder(tmp_path_factory.mktemp("llama"), dropout=0.1)


def make_training(folder: Path, base: Path, chats: Path, name: str) -> JobPaths:
    """Write a job of two epochs of five steps, with a checkpoint after every second one."""
    values: dict[str, Any] = {"lora_target_modules": ("DEFAULT",), "eval_steps": 5, "save_steps": 2}
    return make_job(folder, base, chats, **{**values, **TRAININGS[name]})


def losses(job: JobPaths) -> list[float | None]:
    return [step.loss for step in read_steps(job, FINGERPRINT)]


@pytest.mark.parametrize("name", TRAININGS)
def test_a_training_stops_goes_on_to_the_last_bit_and_is_evaluated(
    tmp_path: Path, base_model: Path, llama: Path, chats: Path, name: str
) -> None:
    base = llama if name in LLAMA_ONLY else base_model
    whole = train_and_look(make_training(tmp_path / "whole", base, chats, name))
    assert all(loss is not None for loss in losses(whole.job))
    assert whole.metrics.parameters.trainable > 0

    job = make_training(tmp_path / "stopped", base, chats, name)
    stop = random.randint(2, whole.metrics.num_steps - 2)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            trainer_module,
            "stop_requested",
            lambda attempt: sum("loss" in line for line in read_history(attempt)) >= stop - 1,
        )
        assert read_json(train_here(job, 1).interrupted) is not None, stop
    metrics = read_metrics(train_here(job, 2))
    assert metrics.resumed_from_steps == (stop,)
    assert losses(job) == losses(whole.job), stop
    assert read_eval_losses(job, FINGERPRINT) == read_eval_losses(whole.job, FINGERPRINT)
    assert_same_weights(job, whole.job)

    args = read_args(whole.job)
    last = whole.job.checkpoints / "last"
    assert (compute_logits(loading.load_checkpoint(args, last, "cpu")) == whole.logits).all()

    questions = [{"question": f"Where is city {n}?", "choices": CHOICES, "answer": n % 4} for n in range(3)]
    evaluations.write_task(tmp_path / "tasks", "where", questions, **evaluations.CHOICE_TASK)
    evaluations.write_train_record(whole.job.folder)
    request = evaluations.make_request(
        base,
        "where",
        train_folder=str(whole.job.folder),
        eval_args={"include_path": (str(tmp_path / "tasks"),), "checkpoint": "last"},
    )
    assert run_eval(tmp_path / "eval", request).tasks["where"].num_samples == 3
