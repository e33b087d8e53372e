"""The trainable parameters that SWIFT 2.x reports, in millions, from shapes alone: nothing here has weights."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedConfig, PreTrainedModel

from hpcbench.schemas.arguments import SftArgs
from hpcbench.worker.train.result import inspect_model
from hpcbench.worker.tuners import load_tuner

pytestmark = pytest.mark.train


class QwenAttention(nn.Module):
    """Qwen-7B's: one projection to query, key and value, the only one with a bias."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.c_attn = nn.Linear(width, 3 * width)
        self.c_proj = nn.Linear(width, width, bias=False)


class QwenMlp(nn.Module):
    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.w1 = nn.Linear(width, inner, bias=False)
        self.w2 = nn.Linear(width, inner, bias=False)
        self.c_proj = nn.Linear(inner, width, bias=False)


class QwenBlock(nn.Module):
    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.ln_1 = nn.RMSNorm(width)
        self.attn = QwenAttention(width)
        self.ln_2 = nn.RMSNorm(width)
        self.mlp = QwenMlp(width, inner)


class QwenShapes(PreTrainedModel):
    """The modules of Qwen-7B, whose code is not part of transformers; it computes nothing."""

    config_class = PreTrainedConfig

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.transformer = nn.Module()
        self.transformer.wte = nn.Embedding(151936, 4096)
        self.transformer.h = nn.ModuleList(QwenBlock(4096, 11008) for _ in range(config.num_hidden_layers))
        self.transformer.ln_f = nn.RMSNorm(4096)
        self.lm_head = nn.Linear(4096, 151936, bias=False)

    def get_input_embeddings(self) -> Any:
        return self.transformer.wte

    def get_output_embeddings(self) -> Any:
        return self.lm_head

    def prepare_inputs_for_generation(self) -> None:
        """Be there: peft asks for it."""


def qwen_7b() -> Any:
    config: Any = PreTrainedConfig()
    config.hidden_size, config.num_attention_heads, config.num_hidden_layers = 4096, 32, 32
    config.tie_word_embeddings = False
    with torch.device("meta"):
        return QwenShapes(config)


def llama(*, inner: int, num_key_value_heads: int, vocab_size: int) -> Any:
    config = LlamaConfig(
        hidden_size=4096,
        intermediate_size=inner,
        num_hidden_layers=32,
        num_attention_heads=32,
        num_key_value_heads=num_key_value_heads,
        vocab_size=vocab_size,
        tie_word_embeddings=False,
    )
    with torch.device("meta"):
        return LlamaForCausalLM(config)


def count(model: Any, **args: Any) -> tuple[float, float]:
    """Return trainable parameters in millions, and their percentage of all."""
    parsed = SftArgs(model_type="m", **args)
    tuner = load_tuner(parsed.tuner)
    with torch.device("meta"):
        prepared = tuner.prepare(model, parsed)
    facts = inspect_model(prepared, trains_base=tuner.trains_base, tokens=None, autocast="none").parameters
    return round(facts.trainable / 1e6, 4), round(100 * facts.trainable / facts.total, 4)


@pytest.mark.parametrize(
    ("args", "millions", "percent"),
    [
        ({"sft_type": "full"}, 7721.3245, 100),
        ({"sft_type": "full", "use_galore": True}, 7721.3245, 100),
        ({"lora_target_modules": "ALL"}, 17.8913, 0.2312),
        ({"lora_target_modules": "ALL", "use_rslora": True}, 17.8913, 0.2312),
        ({"lora_target_modules": "ALL", "use_dora": True}, 19.2512, 0.2487),
        ({"sft_type": "adalora", "lora_target_modules": "ALL"}, 26.8389, 0.3464),
        ({"sft_type": "adapter"}, 33.6896, 0.4344),
        ({"sft_type": "llamapro"}, 809.5826, 9.4900),
        ({"lora_rank": 2}, 1.0486, 0.0136),
        ({"lora_rank": 8}, 4.1943, 0.0543),
        ({"lora_rank": 64}, 33.5544, 0.4327),
    ],
)
def test_qwen_7b(args: dict[str, Any], millions: float, percent: float) -> None:
    assert count(qwen_7b(), **args) == (millions, percent)


def test_llama_3_8b_with_lora_on_query_key_and_value() -> None:
    model = llama(inner=14336, num_key_value_heads=8, vocab_size=128256)
    assert count(model)[0] == 4.7186


def test_llama_2_7b_with_lora_on_all_linear_layers() -> None:
    model = llama(inner=11008, num_key_value_heads=32, vocab_size=32000)
    assert count(model, lora_target_modules="ALL")[0] == 19.9885


def test_ia3_scales_keys_values_and_the_inner_activations() -> None:
    # 32 layers of 1024 keys, 1024 values, 14336 inner activations
    model = llama(inner=14336, num_key_value_heads=8, vocab_size=128256)
    assert count(model, sft_type="ia3")[0] == round(32 * (1024 + 1024 + 14336) / 1e6, 4)
