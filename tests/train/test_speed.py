"""Arguments for speed change no loss, are recorded as they ran, and end the job where they do not take effect."""

from __future__ import annotations

import sys
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import MethodType, ModuleType
from typing import Any

import pytest
import torch
from transformers import Gemma2Config, Gemma2ForCausalLM, Qwen2Config, Qwen2ForCausalLM

from hpcbench.errors import WorkerError
from hpcbench.schemas.arguments import SftArgs
from hpcbench.worker.models.attention import check_attention
from hpcbench.worker.train.head_loss import make_head_loss
from hpcbench.worker.train.speed import Speed, find_liger_kernels
from tests.support.tiny_models import make_job, make_model_folder, read_history, read_metrics, train_here

pytestmark = pytest.mark.train

SIZES: dict[str, Any] = {
    "vocab_size": 50,
    "hidden_size": 8,
    "intermediate_size": 8,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 4,
}


def arguments(**values: Any) -> SftArgs:
    return SftArgs(model_type="qwen2.5-7b-instruct", **values)


def train(folder: Path, base: Path, chats: Path, **values: Any) -> tuple[list[float], dict[str, str]]:
    """Return the losses of three steps, and what the record says of arguments for speed."""
    attempt = train_here(make_job(folder, base, chats, max_steps=3, lora_dropout_p=0, **values))
    losses = [line["loss"] for line in read_history(attempt) if "loss" in line]
    return losses, read_metrics(attempt).took_effect


@pytest.fixture(scope="module")
def without_dropout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model_folder(tmp_path_factory.mktemp("base"), dropout=0)


def test_what_runs_on_the_cpu_changes_no_loss_and_is_recorded(
    tmp_path: Path, without_dropout: Path, chats: Path
) -> None:
    plain, nothing = train(tmp_path / "plain", without_dropout, chats, sft_type="full")
    values: dict[str, Any] = {"chunked_cross_entropy": True, "optim": "adamw_torch_fused"}
    fast, ran = train(tmp_path / "fast", without_dropout, chats, sft_type="full", **values)
    assert fast == pytest.approx(plain, abs=1e-5)
    assert nothing == {}
    assert ran == {"chunked_cross_entropy": "8 chunks", "optim": "fused"}


@pytest.mark.long
# Of torch's own code, where its compiler calls it or looks at a tensor.
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore:The .grad attribute of a Tensor:UserWarning")
@pytest.mark.parametrize("more", [{}, {"chunked_cross_entropy": True}, {"gradient_checkpointing": True}])
def test_a_compiled_training_has_the_same_losses(
    tmp_path: Path, without_dropout: Path, chats: Path, more: dict[str, Any]
) -> None:
    plain, _ = train(tmp_path / "plain", without_dropout, chats)
    compiled, ran = train(tmp_path / "compiled", without_dropout, chats, torch_compile=True, **more)
    assert compiled == pytest.approx(plain, abs=1e-4)
    assert ran["torch_compile"].startswith("inductor: ")


@pytest.mark.long
def test_a_model_that_is_compiled_too_often_ends_the_job(
    tmp_path: Path, without_dropout: Path, chats: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch._dynamo.config, "recompile_limit", 1)
    torch._dynamo.reset()
    with pytest.raises(WorkerError, match="torch_compile: the model was compiled anew too often") as caught:
        train(tmp_path, without_dropout, chats, torch_compile=True, torch_compile_backend="eager")
    assert caught.value.hint == "set torch_compile: false"


def test_gradients_of_a_loss_in_chunks_are_those_of_the_whole() -> None:
    torch.manual_seed(1)
    model = Qwen2ForCausalLM(Qwen2Config(**SIZES, tie_word_embeddings=True)).train()
    ids = torch.randint(0, 50, (3, 9))
    labels = ids.masked_fill(torch.rand(3, 9) < 0.5, -100)

    def backward() -> tuple[float, torch.Tensor]:
        model.zero_grad()
        loss = model(input_ids=ids, labels=labels, num_items_in_batch=torch.tensor(7)).loss
        loss.backward()
        return float(loss.detach()), torch.cat([weight.grad.flatten() for weight in model.parameters()])

    whole, gradients = backward()
    names = list(model.state_dict())
    head_loss = make_head_loss(model, arguments(chunked_cross_entropy=True, chunked_cross_entropy_num_chunks=4))
    assert head_loss is not None
    with head_loss.computing():
        chunked, found = backward()
    assert chunked == pytest.approx(whole, rel=1e-6)
    assert torch.allclose(found, gradients, atol=1e-7)
    assert list(model.state_dict()) == names
    assert model(input_ids=ids).logits.shape == (3, 9, 50)


@pytest.mark.parametrize("argument", ["chunked_cross_entropy", "use_cce"])
def test_a_head_on_another_gpu_than_the_last_layer_gets_states_and_targets_there(
    argument: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    kernel: Any = ModuleType("cut_cross_entropy")
    kernel.linear_cross_entropy = lambda states, weight, targets, **_: torch.nn.functional.cross_entropy(
        states @ weight.T, targets, reduction="sum"
    )
    kernel.__spec__ = ModuleSpec("cut_cross_entropy", None)
    monkeypatch.setitem(sys.modules, "cut_cross_entropy", kernel)
    model = Qwen2ForCausalLM(Qwen2Config(**SIZES))
    head_loss = make_head_loss(model, arguments(**{argument: True}))
    assert head_loss is not None
    # As accelerate puts a tied head beside the embedding; meta takes the place of the first GPU.
    model.lm_head.to("meta")
    head_loss._project = lambda states: torch.nn.functional.linear(states.to("meta"), model.lm_head.weight)
    ids = torch.ones(1, 4, dtype=torch.long)
    with head_loss.computing():
        assert model(input_ids=ids, labels=ids).loss.device.type == "meta"


def test_a_batch_without_a_predicted_token_has_no_loss() -> None:
    model = Qwen2ForCausalLM(Qwen2Config(**SIZES))
    head_loss = make_head_loss(model, arguments(chunked_cross_entropy=True))
    assert head_loss is not None
    with head_loss.computing():
        loss = model(input_ids=torch.ones(1, 4, dtype=torch.long), labels=torch.full((1, 4), -100)).loss
    loss.backward()
    assert float(loss.detach()) == 0


def test_a_model_that_caps_its_logits_is_refused() -> None:
    model = Gemma2ForCausalLM(Gemma2Config(**SIZES, final_logit_softcapping=0.1))
    with pytest.raises(WorkerError) as caught:
        make_head_loss(model, arguments(chunked_cross_entropy=True))
    assert str(caught.value).startswith("chunked_cross_entropy: Gemma2ForCausalLM changes the logits after its head")
    assert caught.value.hint == "set chunked_cross_entropy: false"


def test_an_optimizer_that_is_not_fused_ends_the_job() -> None:
    model = torch.nn.Linear(1, 1)
    speed = Speed(arguments(optim="adamw_torch_fused"), model)
    speed.check_first_step(model, torch.optim.AdamW(model.parameters(), fused=True))
    with pytest.raises(WorkerError, match="optim: it had no effect: AdamW of this method is not fused"):
        speed.check_first_step(model, torch.optim.AdamW(model.parameters()))


def test_a_compiler_that_compiled_nothing_ends_the_job() -> None:
    model = torch.nn.Linear(1, 1)
    speed = Speed(arguments(torch_compile=True), model)
    with pytest.raises(WorkerError, match="torch_compile: it had no effect: torch compiled nothing of this model"):
        speed.check_first_step(model, torch.optim.SGD(model.parameters()))


def test_another_attention_than_the_one_that_is_named_ends_the_job() -> None:
    check_attention(arguments(attn_impl="sdpa"), "sdpa")
    check_attention(arguments(), "eager")
    with pytest.raises(WorkerError, match="attn_impl: sdpa was asked for, and the model runs eager"):
        check_attention(arguments(attn_impl="sdpa"), "eager")


@pytest.fixture
def fake_liger(monkeypatch: pytest.MonkeyPatch) -> None:
    """Put a package in Liger Kernel's place that knows one type of models; the real one cannot be imported on a CPU."""

    def apply_to_qwen2(rms_norm: bool = True, swiglu: bool = True, model: Any = None) -> None:
        """Take the arguments that Liger's function takes."""

    for name in ("liger_kernel", "liger_kernel.transformers", "liger_kernel.transformers.monkey_patch"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    patches: Any = sys.modules["liger_kernel.transformers.monkey_patch"]
    patches.MODEL_TYPE_TO_APPLY_LIGER_FN = {"qwen2": apply_to_qwen2}


def put_in(module: torch.nn.Module, home: str) -> None:
    """Give a module another forward, as Liger Kernel does."""

    def forward(self: Any, states: Any) -> Any:
        return type(self).forward(self, states)

    forward.__module__ = home
    module.forward = MethodType(forward, module)


@pytest.mark.usefixtures("fake_liger")
def test_liger_kernels_are_counted_and_missing_ones_end_the_job() -> None:
    model = Qwen2ForCausalLM(Qwen2Config(**SIZES))
    speed = Speed(arguments(use_liger_kernel=True, liger_kernel_config={"swiglu": True}), model)
    with pytest.raises(WorkerError, match="use_liger_kernel: it had no effect: it replaced no swiglu of it"):
        speed.check_first_step(model, None)
    put_in(model.model.norm, "liger_kernel.transformers.rms_norm")
    with pytest.raises(WorkerError, match="it replaced no swiglu of it"):
        speed.check_first_step(model, None)
    put_in(model.model.layers[0].mlp, "liger_kernel.transformers.swiglu")
    speed.check_first_step(model, None)
    assert find_liger_kernels(model) == {"rms_norm": 1, "swiglu": 1}
    assert speed.describe(model) == {"use_liger_kernel": "rms_norm x1, swiglu x1"}


@pytest.mark.usefixtures("fake_liger")
def test_what_liger_does_not_have_ends_the_job_before_its_first_step() -> None:
    with pytest.raises(WorkerError, match="Liger Kernel has no kernels for models of type gemma2") as caught:
        Speed(arguments(use_liger_kernel=True), Gemma2ForCausalLM(Gemma2Config(**SIZES)))
    assert caught.value.hint == "set use_liger_kernel: false; torch_compile: true works with any type"
    asked = arguments(use_liger_kernel=True, liger_kernel_config={"geglu": True})
    with pytest.raises(WorkerError, match="Liger Kernel has no geglu for models of type qwen2") as caught:
        Speed(asked, Qwen2ForCausalLM(Qwen2Config(**SIZES)))
    assert caught.value.hint == "it has rms_norm, swiglu"
