"""Base weights of 4 and 8 bits: what they hold, how they train, and that a fresh load is the model that was trained."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError

from hpcbench.errors import WorkerError
from hpcbench.schemas.arguments import SftArgs
from hpcbench.storage.json_files import read_json
from hpcbench.worker.evaluate import subject
from hpcbench.worker.models import loading
from hpcbench.worker.models.checkpoint import Checkpoint
from hpcbench.worker.models.quantization import find_dtypes
from hpcbench.worker.train import sft
from hpcbench.worker.train.result import inspect_model
from tests.support.methods import read_args
from tests.support.tiny_models import make_job, make_model_folder, prepare, read_metrics, read_weights, train_here
from tests.train.test_resume import stop_in_step
from tests.train.test_tuners import losses, validation_loss

pytestmark = pytest.mark.train

IDS = torch.arange(40).reshape(2, 20)
# The 16 values of a weight: normal quantiles, arXiv:2305.14314, appendix E.
NF4 = (
    "-1.0 -0.6961928009986877 -0.5250730514526367 -0.39491748809814453 -0.28444138169288635 -0.18477343022823334 "
    "-0.09105003625154495 0.0 0.07958029955625534 0.16093020141124725 0.24611230194568634 0.33791524171829224 "
    "0.44070982933044434 0.5626170039176941 0.7229568362236023 1.0"
)


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model whose layers have whole blocks of 64 weights in each row."""
    return make_model_folder(tmp_path_factory.mktemp("wide") / "model", width=64, inner=128)


def load(wide: Path, **values: Any) -> Any:
    return loading.load_model(SftArgs(model_id_or_path=str(wide), **values), "cpu")


def nf4_rounded(weight: torch.Tensor) -> torch.Tensor:
    """Return a weight with each value the nearest of the 16, times the largest of its block of 64."""
    levels = torch.tensor([float(word) for word in NF4.split()])
    blocks = weight.float().reshape(-1, 64)
    scales = blocks.abs().amax(dim=1, keepdim=True)
    nearest = (blocks / scales).unsqueeze(-1).sub(levels).abs().argmin(dim=-1)
    return (levels[nearest] * scales).reshape(weight.shape)


def test_four_bits_are_the_nearest_nf4_values_in_half_a_byte(wide: Path) -> None:
    plain = load(wide, dtype="fp32").model.layers[1].mlp.down_proj
    layer = load(wide, dtype="fp32", quantization_bit=4, bnb_4bit_use_double_quant=False).model.layers[1].mlp
    packed = layer.down_proj.weight
    assert packed.untyped_storage().nbytes() == 64 * 128 // 2
    hidden = torch.randn(5, 128)
    expected = hidden @ nf4_rounded(plain.weight).T
    torch.testing.assert_close(layer.down_proj(hidden), expected)
    assert (expected - plain(hidden)).abs().max() > 0.01


def test_eight_bits_are_rounded_by_row(wide: Path) -> None:
    plain = load(wide, dtype="fp32").model.layers[1].mlp.down_proj.weight
    layer = load(wide, dtype="fp32", quantization_bit=8).model.layers[1].mlp.down_proj
    assert layer.weight.dtype is torch.int8
    assert layer.weight.untyped_storage().nbytes() == 64 * 128
    scales = plain.abs().amax(dim=1, keepdim=True) / 127
    # Half a step, and what fp16 rounds off up to 127 steps on the way.
    assert ((layer.weight * scales - plain).abs() <= scales * (0.5 + 127 / 2048)).all()


def test_only_linear_layers_but_the_head_are_quantised(wide: Path) -> None:
    for bits in (4, 8):
        loaded = load(wide, quantization_bit=bits)
        whole = {name.rsplit(".", 2)[-2] for name, p in loaded.named_parameters() if p.dtype is torch.bfloat16}
        quantised = {"q_proj", "k_proj", "v_proj"}  # their biases are whole
        assert whole - quantised == {"embed_tokens", "input_layernorm", "post_attention_layernorm", "norm"}


def test_layers_of_four_bits_compute_in_the_dtype_asked_for(wide: Path) -> None:
    """Weights and inputs are rounded to that dtype, and the result comes in the input's."""
    hidden = torch.randn(5, 128)
    for name, dtype in (("bf16", torch.bfloat16), ("fp32", torch.float32), (None, torch.float32)):
        args = {"quantization_bit": 4, "bnb_4bit_use_double_quant": False, "bnb_4bit_comp_dtype": name}
        layer = load(wide, dtype="fp32", **args).model.layers[1].mlp.down_proj
        plain = load(wide, dtype="fp32").model.layers[1].mlp.down_proj
        found = layer(hidden)
        assert found.dtype is torch.float32
        expected = (hidden.to(dtype) @ nf4_rounded(plain.weight).to(dtype).T).float()
        torch.testing.assert_close(found, expected, rtol=2e-2 if name == "bf16" else 1e-5, atol=1e-4)
        assert (found == found.bfloat16()).all() == (name == "bf16")


def test_quant_type_and_double_quant_are_as_asked_for(wide: Path) -> None:
    for quant_type, double in (("nf4", True), ("fp4", False)):
        args = {"quantization_bit": 4, "bnb_4bit_quant_type": quant_type, "bnb_4bit_use_double_quant": double}
        state = load(wide, **args).model.layers[0].mlp.up_proj.weight.quant_state
        assert (state.quant_type, state.nested) == (quant_type, double)
        assert state.absmax.dtype is (torch.uint8 if double else torch.float32)


METHODS: dict[str, dict[str, Any]] = {
    "qlora": {"sft_type": "qlora"},
    "lora-8": {"sft_type": "lora", "quantization_bit": "8"},
    "dora": {"sft_type": "dora", "quantization_bit": 4},
    "lora+": {"sft_type": "lora+", "quantization_bit": 4, "gradient_checkpointing": True, "lora_lr_ratio": 4.0},
    "adalora": {"sft_type": "adalora", "quantization_bit": 4, "learning_rate": 0.05},
    "ia3": {"sft_type": "ia3", "quantization_bit": 8, "learning_rate": 0.05},
}


@pytest.mark.parametrize("method", METHODS)
def test_a_quantised_base_trains_stops_resumes_and_reloads(  # noqa: PLR0917  # fixtures
    tmp_path: Path, wide: Path, chats: Path, tokenizer: Any, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    """With evaluations in between: on a CPU with AVX-512 they once took the gradients away."""
    trained: list[Any] = []
    finish = sft._finish

    def remember(*positional: Any, prepared: Any, **options: Any) -> None:
        trained.append(prepared.model)
        finish(*positional, prepared=prepared, **options)

    monkeypatch.setattr(sft, "_finish", remember)
    values = {**METHODS[method], "eval_steps": 3}
    reference = make_job(tmp_path / "reference", wide, chats, **values)
    metrics = read_metrics(train_here(reference))
    found = [loss for loss in losses(reference) if loss is not None]
    assert sum(found[-3:]) < sum(found[:3])
    bits = read_args(reference).quantization_bit
    assert metrics.dtypes["quantization"].startswith(f"{bits} bit")
    assert metrics.dtypes["weights"] == ("float32+nf4" if bits == 4 else "float32+int8")
    assert metrics.dtypes["adapter"] == "float32"
    reloaded = loading.load_checkpoint(read_args(reference), reference.checkpoints / "last", "cpu")
    with torch.inference_mode():
        assert (reloaded(IDS).logits == trained[0].eval()(IDS).logits).all()

    job = make_job(tmp_path / "job", wide, chats, **values)
    stop_in_step(monkeypatch, 5)
    assert read_json(train_here(job, 1).interrupted) is not None
    stop_in_step(monkeypatch, None)
    train_here(job, 2)
    assert losses(job) == losses(reference)
    expected, resumed = read_weights(reference.checkpoints / "last"), read_weights(job.checkpoints / "last")
    assert all((expected[key] == resumed[key]).all() for key in expected)
    assert validation_loss(job, job.checkpoints / "last", tokenizer) == pytest.approx(metrics.last_eval_loss, abs=1e-6)


def test_an_evaluation_takes_no_gradients_away(wide: Path) -> None:
    prepared, _ = prepare(wide, sft_type="qlora", lora_target_modules="ALL")

    def gradients() -> list[torch.Tensor]:
        torch.manual_seed(0)  # attention has dropout
        prepared.train()
        prepared.zero_grad()
        prepared(input_ids=IDS, labels=IDS).loss.backward()
        return [p.grad.clone() for name, p in prepared.named_parameters() if "lora_B" in name and p.grad is not None]

    before = gradients()
    with torch.inference_mode():
        prepared.eval()(input_ids=IDS)
    after = gradients()
    assert len(before) == len(after) == 14
    assert all((old == new).all() and old.abs().max() > 0 for old, new in zip(before, after, strict=True))


@pytest.mark.parametrize("bits", [4, 8])
def test_parameters_are_counted_as_without_quantisation(wide: Path, bits: int) -> None:
    facts = []
    for quantization_bit in (0, bits):
        prepared, _ = prepare(wide, lora_target_modules="ALL", quantization_bit=quantization_bit)
        facts.append(inspect_model(prepared, trains_base=False, tokens=None, autocast="none"))
    assert facts[0].parameters == facts[1].parameters
    assert facts[1].parameters.trainable > 0
    assert "quantization" in facts[1].dtypes
    assert "quantization" not in facts[0].dtypes


def test_an_eval_of_a_baseline_counts_and_says_so_too(wide: Path) -> None:
    plain, quantised = load(wide), load(wide, quantization_bit=4)
    subjects = [
        subject.Subject(checkpoint=Checkpoint(choice="baseline"), model=each, tokenizer=None, template=None)  # type: ignore[arg-type]
        for each in (plain, quantised)
    ]
    assert subject.find_parameters(subjects[0]) == subject.find_parameters(subjects[1])
    assert find_dtypes(quantised)["weights"] == "bfloat16+nf4"
    assert find_dtypes(quantised)["quantization"].startswith("4 bit nf4, double, computed in bfloat16, bitsand")


@pytest.mark.parametrize("bits", [4, 8])
def test_an_adapter_is_merged_into_the_dequantised_base(
    tmp_path: Path, wide: Path, chats: Path, tokenizer: Any, bits: int
) -> None:
    job = make_job(tmp_path, wide, chats, quantization_bit=bits, max_steps=4)
    metrics = read_metrics(train_here(job))
    merged = validation_loss(job, job.checkpoints / "last", tokenizer, merge=True)
    assert merged == pytest.approx(metrics.last_eval_loss, abs=1e-5 if bits == 4 else 2e-2)
    loaded = loading.load_checkpoint(read_args(job), job.checkpoints / "last", "cpu", merge=True)
    assert {parameter.dtype for parameter in loaded.parameters()} == {torch.float32}


def test_a_model_whose_blocks_cross_rows_is_refused_on_the_cpu(base_model: Path) -> None:
    with pytest.raises(WorkerError, match=r"q_proj has 32 inputs, .*in whole blocks of 64"):
        load(base_model, quantization_bit=4)


def test_a_missing_library_is_named_with_its_extra(wide: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    with pytest.raises(WorkerError, match="quantization_bit: 4 needs bitsandbytes") as caught:
        load(wide, quantization_bit=4)
    assert caught.value.hint is not None
    assert "pip install 'hpcbench-llm[bnb]'" in caught.value.hint


@pytest.mark.parametrize("sft_type", ["full", "galore", "lisa", "llamapro", "adapter"])
def test_only_adapters_beside_the_base_go_with_quantisation(sft_type: str) -> None:
    with pytest.raises(ValidationError, match="quantization_bit freezes the base and cannot go with sft_type"):
        SftArgs(model_type="m", sft_type=sft_type, quantization_bit=4)


def test_the_seeds_defaults_and_words() -> None:
    args = SftArgs(model_type="m")
    found = (args.quantization_bit, args.bnb_4bit_comp_dtype, args.bnb_4bit_quant_type, args.bnb_4bit_use_double_quant)
    assert found == (0, None, "nf4", True)
    assert SftArgs(model_type="m", sft_type="qlora").quantization_bit == 4
    with pytest.raises(ValidationError, match="sft_type qlora contradicts quantization_bit: 0"):
        SftArgs(model_type="m", sft_type="qlora", quantization_bit=0)
