"""The words of `optim` and `lr_scheduler_type` against those of the installed transformers."""

from __future__ import annotations

import importlib.util
import inspect
from pathlib import Path
from typing import Any

import pytest

from hpcbench.schemas.arguments import SftArgs
from hpcbench.schemas.optimizers import (
    COUNT_SETTINGS,
    NEEDED_SETTINGS,
    OPTIMIZERS,
    REFUSED_OPTIMIZERS,
    REFUSED_SCHEDULERS,
    SCHEDULERS,
    WITHOUT_BETAS,
    WITHOUT_EPSILON,
)
from hpcbench.schemas.request import JobRequest
from tests.support.job_cases import CPU
from tests.support.suite_writer import HEAD, load_one, refusal

pytest.importorskip("torch", reason="the words are compared with those of the worker's libraries")


def test_every_word_of_transformers_is_taken_or_refused_with_a_reason() -> None:
    from transformers.trainer_utils import SchedulerType
    from transformers.training_args import OptimizerNames

    assert {name.value for name in OptimizerNames} == OPTIMIZERS.keys() | REFUSED_OPTIMIZERS.keys()
    assert {name.value for name in SchedulerType} == SCHEDULERS.keys() | REFUSED_SCHEDULERS.keys()


def test_settings_of_schedules_are_those_of_transformers() -> None:
    from transformers.optimization import TYPE_TO_SCHEDULER_FUNCTION
    from transformers.trainer_utils import SchedulerType

    common = {"optimizer", "num_warmup_steps", "num_training_steps", "last_epoch"}
    for name, known in SCHEDULERS.items():
        make: Any = TYPE_TO_SCHEDULER_FUNCTION[SchedulerType(name)]
        parameters = inspect.signature(make).parameters
        # Beside the number of all steps num_stable_steps is taken with a warning.
        assert parameters.keys() - common - {"num_stable_steps"} == set(known), name


@pytest.mark.parametrize("name", sorted(OPTIMIZERS))
def test_which_optimizers_have_betas_and_epsilon_is_known(name: str, tmp_path: Path) -> None:
    from transformers import Trainer, TrainingArguments

    if OPTIMIZERS[name] is not None and importlib.util.find_spec(str(OPTIMIZERS[name])) is None:
        pytest.skip(f"{OPTIMIZERS[name]} is not installed")
    arguments = TrainingArguments(output_dir=str(tmp_path), optim=name, use_cpu=True)
    _, options = Trainer.get_optimizer_cls_and_kwargs(arguments)
    assert ("betas" in options, "eps" in options) == (name not in WITHOUT_BETAS, name not in WITHOUT_EPSILON)


@pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")
@pytest.mark.filterwarnings("ignore:Paged optimizers are not supported on CPU:UserWarning")
@pytest.mark.parametrize("name", sorted(OPTIMIZERS))
def test_an_accepted_optimizer_takes_a_step_on_the_cpu_or_its_library_is_named(name: str, tmp_path: Path) -> None:
    import torch
    from transformers import Trainer, TrainingArguments

    from hpcbench.worker.requirements import LibraryMissingError, check_libraries

    module = OPTIMIZERS[name]
    if module is not None and importlib.util.find_spec(module) is None:
        args = SftArgs(model_type="m", optim=name)
        request = JobRequest(
            suite="s",
            experiment="e",
            job="train",
            cmd="sft",
            fingerprint="f" * 64,
            device="cpu",
            resources=CPU,
            args=args,
        )
        with pytest.raises(LibraryMissingError, match=f"has no {module}"):
            check_libraries(request)
        return
    # Named as worker/train/sft.py names it: no optim_target_modules, no optim_args.
    arguments = TrainingArguments(output_dir=str(tmp_path), optim=name, use_cpu=True)
    model = torch.nn.Linear(64, 64)
    optimizer_class, options = Trainer.get_optimizer_cls_and_kwargs(arguments)
    optimizer = optimizer_class(model.parameters(), **options)
    before = model.weight.detach().clone()
    model(torch.ones(2, 64)).square().mean().backward()
    optimizer.step()
    assert not torch.equal(before, model.weight)


@pytest.mark.parametrize("name", sorted(REFUSED_OPTIMIZERS))
def test_a_refused_optimizer_has_a_reason_and_a_way_on(name: str, tmp_path: Path) -> None:
    text = refusal(tmp_path, f"{HEAD}experiment: [{{name: a, args: {{optim: {name}}}}}]\n")
    assert f"'{name}' cannot be used: {REFUSED_OPTIMIZERS[name].reason}" in text
    assert f"hint: {REFUSED_OPTIMIZERS[name].instead}" in text


@pytest.mark.parametrize("name", sorted(SCHEDULERS))
def test_each_scheduler_runs_from_warm_up_to_end(name: str) -> None:
    import torch
    from transformers import get_scheduler

    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    needed = NEEDED_SETTINGS.get(name, ())[:1]
    settings = {setting: 4 if setting in COUNT_SETTINGS else 0.1 for setting in needed}
    scheduler = get_scheduler(
        name, optimizer, num_warmup_steps=2, num_training_steps=10, scheduler_specific_kwargs=settings
    )
    rates = []
    for _ in range(10):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    if name == "cosine_warmup_with_min_lr":  # one step ahead of the others, throughout
        rates.insert(0, 0.0)
    warm = [1.0, 1.0] if name == "constant" else [0.0, 0.5]
    assert rates[:3] == [*warm, 1.0]
    assert rates[3:] == sorted(rates[3:], reverse=True)


def test_unknown_words_are_refused_at_the_door(tmp_path: Path) -> None:
    def refuse(words: str) -> str:
        return refusal(tmp_path, f"{HEAD}experiment: [{{name: a, args: {{{words}}}}}]\n")

    assert "unknown lr_scheduler_type 'cosin'" in refuse("lr_scheduler_type: cosin")
    assert "did you mean 'cosine'?" in refuse("lr_scheduler_type: cosin")
    assert "unknown optim 'adam'" in refuse("optim: adam")
    assert "set use_galore: true" in refuse("optim: galore_adamw")
    text = refuse("lr_scheduler_type: warmup_stable_decay")
    assert "`lr_scheduler_type: warmup_stable_decay` needs num_decay_steps" in text
    assert "hint: set lr_scheduler_kwargs: {num_decay_steps: 100}" in text
    args = load_one(tmp_path, f"{HEAD}experiment: [{{name: a, args: {{optim: adamw_hf}}}}]\n").args
    assert args is not None
    assert args.optim == "adamw_torch"
