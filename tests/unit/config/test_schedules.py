"""The learning rate's schedule, evaluations and data loading: what plan takes, and what it refuses before a job does."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from hpcbench.schemas.suite import Suite
from tests.unit.config.test_swift_names import load_with


def load(folder: Path, **args: Any) -> Suite | str:
    """Return the suite with these arguments, or the text of its refusal."""
    return load_with(folder, "learning_rate", 1e-3, **args)


@pytest.mark.parametrize(
    ("args", "expected"),
    [
        ({"lr_scheduler_kwargs": {"num_cycels": 2}}, "cosine has no setting 'num_cycels'\n  expected: num_cycles\n  hint: did"),
        ({"lr_scheduler_kwargs": {"num_cycles": "x"}}, "num_cycles: got 'x'\n  expected: a number, 0 or more"),
        (
            {"lr_scheduler_type": "inverse_sqrt", "lr_scheduler_kwargs": {"timescale": 1.5}},
            "timescale: got 1.5\n  expected: a whole number, 0 or more",
        ),
        (
            {
                "lr_scheduler_type": "warmup_stable_decay",
                "lr_scheduler_kwargs": {"num_decay_steps": 9, "decay_type": "fast"},
            },
            "decay_type: got 'fast'\n  expected: linear, cosine, 1-sqrt",
        ),
        (
            {"lr_scheduler_type": "cosine_with_min_lr"},
            "needs min_lr or min_lr_rate\n  hint: set lr_scheduler_kwargs: {min_lr: 1e-6}",
        ),
        (
            {"lr_scheduler_type": "cosine_with_min_lr", "lr_scheduler_kwargs": {"min_lr": 0, "min_lr_rate": 0.1}},
            "min_lr and min_lr_rate both say where the schedule ends",
        ),
        ({"min_lr": 0.1}, "min_lr 0.1 is above the learning rate of 0.001"),
        ({"lr_scheduler_kwargs": {"min_lr": 1e-6}}, "cosine has no setting 'min_lr'"),
        ({"lr_scheduler_type": "polynomial", "lr_scheduler_kwargs": {"lr_end": 0.01}}, "lr_end 0.01 is not below"),
        ({"min_lr": 1e-4, "lr_scheduler_type": "linear"}, "`min_lr` has no effect"),
        ({"warmup_steps": 2, "warmup_ratio": 0.1}, "`warmup_ratio` has no effect in any experiment\n  expected: warmup_steps: 0"),
        ({"adam_beta1": 0.5, "optim": "sgd"}, "`adam_beta1` has no effect"),
        ({"adam_epsilon": 1e-6, "optim": "lion_32bit"}, "`adam_epsilon` has no effect"),
        ({"eval_strategy": "epoch", "eval_steps": 9, "save_steps": 9}, "`eval_steps` has no effect"),
        ({"save_strategy": "epoch", "save_steps": 9}, "`save_steps` has no effect"),
        ({"eval_strategy": "no", "predict_with_generate": True}, "there is no validation split"),
        ({"dataloader_num_workers": 2, "ddp_find_unused_parameters": False, "sft_type": "lisa"}, "lisa leaves weights"),
        ({"resume_only_model": True}, "resume_only_model"),
        ({"adam_beta2": 1}, "adam_beta2: got 1\n  expected: number, 0"),
    ],
)  # fmt: skip
def test_what_would_run_as_something_else_is_refused(tmp_path: Path, args: dict[str, Any], expected: str) -> None:
    text = load(tmp_path, **args)
    assert isinstance(text, str)
    assert expected in text


@pytest.mark.parametrize(
    "args",
    [
        {"lr_scheduler_kwargs": '{"num_cycles": 2}'},
        {"min_lr": 1e-5},
        {"lr_scheduler_type": "cosine_with_min_lr", "min_lr": 1e-5},
        {"lr_scheduler_type": "cosine_with_min_lr", "lr_scheduler_kwargs": {"min_lr": 1e-6}},
        {"lr_scheduler_type": "warmup_stable_decay", "lr_scheduler_kwargs": {"num_decay_steps": 9}},
        {"warmup_steps": 10},
        {"eval_strategy": "epoch", "save_strategy": "epoch"},
        {"evaluation_strategy": "no"},
        {"adam_beta1": 0.8, "adam_beta2": 0.95, "adam_epsilon": 1e-6},
        {"dataloader_num_workers": 2, "dataloader_prefetch_factor": 4, "dataloader_persistent_workers": True},
        {"dataloader_pin_memory": False, "dataloader_drop_last": True, "ddp_timeout": 600, "full_determinism": True},
        {"ddp_find_unused_parameters": False, "ddp_broadcast_buffers": False, "gpu_memory_fraction": 0.5},
    ],
)
def test_what_the_trainer_can_do_is_taken(tmp_path: Path, args: dict[str, Any]) -> None:
    found = load(tmp_path, **args)
    assert isinstance(found, Suite), found
    made = found.experiments[0].args
    for name, value in args.items():
        own = {"evaluation_strategy": "eval_strategy"}.get(name, name)
        expected = json.loads(value) if own == "lr_scheduler_kwargs" and isinstance(value, str) else value
        assert getattr(made, own) == expected


def test_weights_alone_are_taken_from_a_folder_that_has_some(tmp_path: Path) -> None:
    folder = tmp_path / "checkpoint"
    folder.mkdir()
    values = {"resume_from_checkpoint": "checkpoint", "resume_only_model": True}
    assert f"{folder} holds no weights" in str(load(tmp_path, **values))
    (folder / "adapter_model.safetensors").touch()
    assert isinstance(load(tmp_path, **values), Suite)
