"""Each method of peft by its name: it trains, goes on from a checkpoint, is loaded, merged and counted.

A training of each, killed and resumed to the last bit, is in `test_every_peft_training.py`, which takes long.
"""

from __future__ import annotations

import shutil
import warnings
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from transformers import MixtralConfig, MixtralForCausalLM

from hpcbench.catalog.peft_methods import FILE, peft_methods, peft_version
from hpcbench.errors import WorkerError
from hpcbench.schemas.arguments import SftArgs
from hpcbench.worker.models import loading
from hpcbench.worker.train.result import inspect_model
from hpcbench.worker.tuners import load_tuner
from tests.support.methods import compute_logits
from tests.support.peft_methods import describe, to_text
from tests.support.peft_trainings import LLAMA_ONLY, PEFT_METHODS
from tests.support.tiny_models import make_llama_folder, make_model_folder, prepare

pytestmark = pytest.mark.train


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_llama_folder(tmp_path_factory.mktemp("llama"))


@pytest.fixture(scope="module")
def qwen2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As `base_model`, without dropout: two steps show whether the loss falls."""
    return make_model_folder(tmp_path_factory.mktemp("qwen2"), dropout=0.0)


def seeded(base: Path, **values: Any) -> tuple[Any, SftArgs]:
    """Return a prepared model as a job of this seed has it."""
    torch.manual_seed(42)
    return prepare(base, **values)


def take_steps(model: Any, *, count: int = 2) -> list[float]:
    """Return the losses of some steps on one batch."""
    model.train()
    optimizer = torch.optim.AdamW((p for p in model.parameters() if p.requires_grad), lr=1e-2)
    ids = torch.arange(60, 100).reshape(2, 20)
    losses = []
    for _ in range(count):
        loss = model(input_ids=ids, attention_mask=torch.ones_like(ids), labels=ids).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    return losses


def trained_weights(model: Any) -> dict[str, torch.Tensor]:
    return {name: p.detach().clone() for name, p in model.named_parameters() if p.requires_grad}


# peft warns of what does not matter here: norms as targets, no CUDA extension for boft, sparse tensors of frod.
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("method", PEFT_METHODS)
def test_a_method_of_peft_trains_and_its_folder_holds_all_that_it_learned(
    tmp_path: Path, qwen2: Path, llama: Path, method: str
) -> None:
    base = llama if method in LLAMA_ONLY else qwen2
    model, args = seeded(base, **PEFT_METHODS[method])
    before = trained_weights(model)
    facts = inspect_model(model, trains_base=False, tokens=None, autocast="none")
    assert facts.parameters.trainable == sum(weight.numel() for weight in before.values()) > 0
    first, last = take_steps(model)
    assert last < first or method == "pvera"  # which draws from a distribution in each forward pass
    after = trained_weights(model)
    assert any((before[name] != after[name]).any() for name in before)
    model.eval()
    expected = compute_logits(model)
    model.save_pretrained(tmp_path / "last")

    torch.manual_seed(7)
    loaded = loading.load_checkpoint(args, tmp_path / "last", "cpu")
    assert (compute_logits(loaded) == expected).all()

    # As the Trainer goes on: the same model made once more, the saved adapter put into it, then the tuner's own state.
    resumed, _ = seeded(base, **PEFT_METHODS[method])
    checkpoint = tmp_path / "checkpoint-2"
    shutil.copytree(tmp_path / "last", checkpoint)
    for callback in load_tuner(args.tuner).make_callbacks(model, args, None):
        callback.on_save(Arguments(tmp_path), State(), None)
    resumed.load_adapter(str(checkpoint), resumed.active_adapter, is_trainable=True)
    for callback in load_tuner(args.tuner).make_callbacks(resumed, args, checkpoint):
        callback.on_train_begin(None, State(), None)
    found = trained_weights(resumed)
    assert found.keys() == after.keys()
    assert all((found[name] == after[name]).all() for name in after)

    if args.merges:
        merged = loading.load_checkpoint(args, tmp_path / "last", "cpu", merge=True)
        assert not hasattr(merged, "peft_config")
        torch.testing.assert_close(compute_logits(merged), expected, atol=1e-4, rtol=1e-4)
    else:
        with pytest.raises(WorkerError, match="cannot be merged"):
            loading.load_checkpoint(args, tmp_path / "last", "cpu", merge=True)


@pytest.mark.parametrize(
    ("values", "frozen"),
    [
        ({"freeze_parameters_ratio": 0.25}, {"model.embed_tokens.weight"}),
        ({"freeze_parameters_ratio": 1, "trainable_parameters": ["model.norm"]}, None),
        ({"freeze_parameters_regex": r"layers\.0\.mlp", "trainable_parameters_regex": "up_proj"},
         {"model.layers.0.mlp.gate_proj.weight", "model.layers.0.mlp.down_proj.weight"}),
        ({"freeze_parameters": ["model.layers", "lm_head"]}, None),
    ],
)  # fmt: skip
def test_full_leaves_out_the_weights_that_are_frozen(
    llama: Path, values: dict[str, Any], frozen: set[str] | None
) -> None:
    model, _ = seeded(llama, sft_type="full", **values)
    names = {name for name, _ in model.named_parameters()}
    expected = names - frozen if frozen is not None else {"model.norm.weight"}
    if "freeze_parameters" in values:
        expected = {"model.embed_tokens.weight", "model.norm.weight"}
    assert trained_weights(model).keys() == expected


def test_full_with_nothing_left_to_train_is_refused(llama: Path) -> None:
    with pytest.raises(WorkerError, match="no weight is left to train"):
        seeded(llama, sft_type="full", freeze_parameters_ratio=1)


def test_butterflies_that_peft_would_leave_out_are_refused(llama: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(WorkerError, match="boft_n_butterfly_factor: 2 needs peft's CUDA extension"):
            seeded(llama, sft_type="boft", peft_config={"boft_n_butterfly_factor": 2})


class Arguments:
    """The one of transformers' arguments that callbacks read."""

    def __init__(self, output_dir: Path) -> None:
        self.output_dir = str(output_dir)


class State:
    """A trainer's state after two steps."""

    is_world_process_zero = True
    global_step = 2


def test_lora_trains_experts_by_the_names_of_their_weights(tmp_path: Path) -> None:
    config = MixtralConfig(
        vocab_size=128, hidden_size=16, intermediate_size=24, num_hidden_layers=1, num_attention_heads=2,
        num_key_value_heads=2, num_local_experts=2, max_position_embeddings=64,
    )  # fmt: skip
    torch.manual_seed(7)
    MixtralForCausalLM(config).save_pretrained(tmp_path / "moe")
    values: dict[str, Any] = {"lora_target_modules": "q_proj", "target_parameters": "mlp.experts.gate_up_proj"}
    model, args = seeded(tmp_path / "moe", **values)
    assert any("experts.lora_A" in name for name in trained_weights(model))
    first, last = take_steps(model)
    assert last < first
    expected = compute_logits(model.eval())
    model.save_pretrained(tmp_path / "last")
    assert (compute_logits(loading.load_checkpoint(args, tmp_path / "last", "cpu")) == expected).all()
    with pytest.raises(WorkerError, match=r"target_parameters: no weight is named experts\.up"):
        seeded(tmp_path / "moe", **{**values, "target_parameters": "experts.up"})


def test_each_method_that_peft_can_train_is_tried_here() -> None:
    own = {"lora", "adalora", "ia3"}
    refused = {"cpt", "multitask_prompt_tuning", "poly", "xlora"}
    assert set(PEFT_METHODS) == set(peft_methods()) - own - refused


def test_plan_knows_the_methods_and_fields_of_the_installed_peft() -> None:
    if peft.__version__ != peft_version():
        pytest.skip(f"the list is of peft {peft_version()}")
    assert FILE.read_text(encoding="utf-8") == to_text(describe()), "run `python -m tests.support.peft_methods`"
