"""The words of `optim` and `lr_scheduler_type` against those of the installed transformers."""

from __future__ import annotations

from pathlib import Path

import pytest

from hpcbench.schemas.optimizers import OPTIMIZERS, REFUSED_OPTIMIZERS, REFUSED_SCHEDULERS, SCHEDULERS
from tests.support.suite_writer import HEAD, load_one, refusal


def test_every_word_of_transformers_is_taken_or_refused_with_a_reason() -> None:
    from transformers.trainer_utils import SchedulerType
    from transformers.training_args import OptimizerNames

    assert {name.value for name in OptimizerNames} == OPTIMIZERS | REFUSED_OPTIMIZERS.keys()
    assert {name.value for name in SchedulerType} == SCHEDULERS | REFUSED_SCHEDULERS.keys()


@pytest.mark.parametrize("name", sorted(SCHEDULERS))
def test_each_scheduler_runs_from_warm_up_to_end(name: str) -> None:
    import torch
    from transformers import get_scheduler

    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    scheduler = get_scheduler(name, optimizer, num_warmup_steps=2, num_training_steps=10)
    rates = []
    for _ in range(10):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
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
    assert "settings of its own" in refuse("lr_scheduler_type: warmup_stable_decay")
    args = load_one(tmp_path, f"{HEAD}experiment: [{{name: a, args: {{optim: adamw_hf}}}}]\n").args
    assert args is not None
    assert args.optim == "adamw_torch"
