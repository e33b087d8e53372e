"""Model folders of quantised weights: what is known of them, what trains on them, what an export can make."""

from __future__ import annotations

from typing import Any

import pytest

from hpcbench.model_files.checks import check_model
from hpcbench.model_files.folder import ModelFolder
from hpcbench.model_files.quantized import find_quantized
from hpcbench.model_files.quantized_checks import check_export, check_merging
from hpcbench.model_files.tokenizer import Tokenizer
from hpcbench.model_files.weights import Weights
from hpcbench.schemas.arguments import ExportArgs, SftArgs

GPTQ = {"quant_method": "gptq", "bits": 4, "group_size": 128}
AWQ = {"quant_method": "awq", "w_bit": 4, "q_group_size": 64}
SIZES = {
    "model.embed_tokens.weight": (259, 96),
    "model.layers.0.input_layernorm.weight": (96,),
    "model.layers.0.self_attn.q_proj.weight": (96, 96),
    "model.layers.0.mlp.down_proj.weight": (96, 144),
    "lm_head.weight": (259, 96),
}


def folder(quantization: dict[str, Any] | None, shapes: dict[str, tuple[int, ...]] | None = None) -> ModelFolder:
    config: dict[str, Any] = {"model_type": "qwen2", "architectures": ["Qwen2ForCausalLM"]}
    if quantization is not None:
        config["quantization_config"] = quantization
    weights = Weights(names=frozenset(shapes or ()), shapes=shapes or {})
    return ModelFolder(name="m", config=config, weights=weights, tokenizer=Tokenizer())


def faults(quantization: dict[str, Any] | None, **values: Any) -> list[str]:
    args = SftArgs(model_id_or_path="m", **values)
    found = check_model(args, folder(quantization), trains=True, has_chats=False)
    return [f"{fault.argument}: {fault.message}" for fault in found]


@pytest.mark.parametrize(
    ("quantization", "name", "group_size"),
    [
        (GPTQ, "gptq, 4 bits", 128),
        ({"quant_method": "gptq", "bits": 8, "group_size": -1}, "gptq, 8 bits", -1),
        (AWQ, "awq, 4 bits", 64),
        ({"quant_method": "aqlm", "nbits_per_codebook": 16, "in_group_size": 8}, "aqlm", 8),
        ({"load_in_4bit": True}, "bitsandbytes, 4 bits", None),
        ({"quant_method": "mxfp4"}, "mxfp4", None),
    ],
)
def test_a_config_says_how_weights_are_held(quantization: dict[str, Any], name: str, group_size: int | None) -> None:
    held = find_quantized({"quantization_config": quantization})
    assert held is not None
    assert (held.name, held.group_size) == (name, group_size)


def test_a_config_without_quantization_says_nothing() -> None:
    assert find_quantized({"quantization_config": None}) is None


@pytest.mark.parametrize("quantization", [GPTQ, AWQ, {"quant_method": "aqlm"}])
def test_lora_trains_on_them(quantization: dict[str, Any]) -> None:
    assert faults(quantization) == []
    assert faults(quantization, quant_method=quantization["quant_method"]) == []


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            {"sft_type": "full"},
            "sft_type: m is quantised (gptq, 4 bits), and sft_type full cannot train on such weights",
        ),
        ({"sft_type": "ia3"}, "sft_type: m is quantised (gptq, 4 bits), and sft_type ia3 cannot train on such weights"),
        ({"sft_type": "dora"}, "use_dora: m is quantised (gptq, 4 bits), whose weights dora cannot take apart"),
        (
            {"lora_bias_trainable": "all"},
            "lora_bias_trainable: m is quantised (gptq, 4 bits), and such layers keep their biases frozen",
        ),
        (
            {"quantization_bit": 4},
            "quantization_bit: m is quantised already (gptq, 4 bits), and quantization_bit would do it again",
        ),
        ({"quant_method": "awq"}, "quant_method: m is quantised by gptq, and quant_method says awq"),
        ({"fsdp": "full_shard"}, "fsdp: m is quantised (gptq, 4 bits), and `fsdp` shares weights of 16 or 32 bits"),
        (
            {"deepspeed": "zero3"},
            "deepspeed: m is quantised (gptq, 4 bits), and `deepspeed` shares weights of 16 or 32 bits",
        ),
    ],
)
def test_what_cannot_train_on_them_is_refused(values: dict[str, Any], message: str) -> None:
    assert faults(GPTQ, **values) == [message]


def test_a_quant_method_is_not_taken_for_one_that_quantises_plain_weights() -> None:
    assert faults(None, quant_method="gptq") == ["quant_method: m is not quantised, and quant_method says gptq"]


def test_no_adapter_is_merged_into_packed_weights() -> None:
    fault = check_merging("merge_lora", folder(AWQ))
    assert fault is not None
    assert fault.message == "m is quantised (awq, 4 bits), and no adapter can be merged into such weights"
    assert fault.expected == "merge_lora: false"
    assert check_merging("merge_lora", folder({"load_in_4bit": True})) is None
    assert check_merging("merge_lora", folder(None)) is None


@pytest.mark.parametrize(
    ("export", "expected"),
    [
        (
            {"quant_method": "gptq"},
            ("group_size", "mlp.down_proj has 144 inputs, which groups of 128", "group_size 16"),
        ),
        ({"quant_method": "awq", "group_size": 16}, ("quant_method", "down_proj has 96 outputs", "gptq or bnb")),
        ({"quant_method": "gptq", "group_size": 16}, None),
        ({"quant_method": "gptq", "group_size": -1}, None),
        ({"quant_method": "bnb"}, None),
    ],
)
def test_sizes_of_layers_are_checked_before_an_export(
    export: dict[str, Any], expected: tuple[str, str, str] | None
) -> None:
    found = list(check_export(ExportArgs(quant_bits=4, **export), folder(None, SIZES)))
    assert len(found) == (expected is not None)
    for fault in found:
        assert expected is not None
        assert (fault.argument, fault.expected) == (expected[0], expected[2])
        assert expected[1] in fault.message


def test_an_export_needs_plain_weights() -> None:
    assert [fault.message for fault in check_export(ExportArgs(quant_bits=4), folder(GPTQ))] == [
        "m is quantised already (gptq, 4 bits)"
    ]
    merges = ExportArgs(ckpt_from="lora")
    assert [fault.argument for fault in check_export(merges, folder(GPTQ))] == ["merge_lora"]
    assert list(check_export(merges, folder({"load_in_8bit": True}))) == []
