"""What an eval's model hands to transformers."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from hpcbench.worker.evaluate.model import EvalModel
from tests.support.tiny_models import make_tokenizer


@pytest.mark.parametrize(
    ("asked", "handed_on", "num_tokens"), [({}, [9], 3), ({"eos_token_id": 7}, [7], 2), ({"eos_token_id": [7]}, [7], 2)]
)
def test_ends_that_gen_kwargs_name_take_the_place_of_the_models(
    asked: dict[str, Any], handed_on: list[int], num_tokens: int
) -> None:
    prompt = torch.tensor([[1, 2]])
    handed: dict[str, Any] = {}
    counted: dict[str, Any] = {}

    def generate(**options: Any) -> torch.Tensor:
        handed.update(options)
        return torch.tensor([[1, 2, 3, 7, 9]])

    model: Any = SimpleNamespace(
        _between_batches=lambda *_: None,
        _counter=SimpleNamespace(num_done=0),
        _num_expected=1,
        _is_warm=True,
        _eos_token_ids=(9,),
        tokenizer=make_tokenizer(),
        device=torch.device("cpu"),
        model=SimpleNamespace(generate=generate),
        meter=SimpleNamespace(add=lambda **figures: counted.update(figures)),
    )
    EvalModel._model_generate(model, prompt, 8, [], attention_mask=torch.ones_like(prompt), **asked)
    assert (handed["eos_token_id"], counted["row_tokens"]) == (handed_on, [num_tokens])
