"""Numbers of a peft method are compared with the layers that it goes into, before anything is queued."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.support.model_folders import write_model
from tests.unit.model_files.test_plan_of_a_model import plan


@pytest.mark.parametrize(
    ("args", "field"),
    [
        ({"sft_type": "boft", "boft_block_size": 3}, "boft_block_size: a divisor of the layer's inputs"),
        ({"sft_type": "boft", "boft_block_num": 3}, "boft_block_num: a divisor of the layer's inputs"),
        ({"sft_type": "oft", "oft_block_size": 3}, "oft_block_size: a divisor of the layer's inputs"),
        ({"sft_type": "c3a", "block_size": 3}, "block_size: a divisor of the layer's inputs and outputs"),
        ({"sft_type": "vblora", "vector_length": 3}, "vector_length: a divisor of the layer's inputs and outputs"),
        ({"sft_type": "gralora", "gralora_k": 3, "r": 9}, "gralora_k: a divisor of the layer's inputs and outputs"),
        ({"sft_type": "road", "group_size": 6}, "group_size: a divisor of the layer's outputs"),
        ({"sft_type": "fourierft"}, "n_frequency: no more than the layer's weights"),
        ({"sft_type": "waveft"}, "n_frequency: no more than the layer's weights"),
        ({"sft_type": "miss", "r": 999}, "r: no more than the layer's inputs"),
        ({"sft_type": "psoft", "r": 999}, "r: no more than the layer's inputs and its outputs"),
        ({"sft_type": "shira", "r": 999}, "r: r x (inputs + outputs) no more than the layer's weights"),
    ],
)
def test_a_number_that_does_not_fit_a_layer_is_refused(tmp_path: Path, args: dict[str, Any], field: str) -> None:
    write_model(tmp_path / "model")
    for targets in ("DEFAULT", "ALL", "q_proj"):
        text = plan(tmp_path, **args, lora_target_modules=targets)
        assert f"expected: {field}" in text
        assert f"{args['sft_type']} with {field.partition(':')[0]} " in text
    assert "does not fit model.layers.0.mlp.up_proj" in plan(tmp_path, **args, target_regex=r".*\.0\.mlp\.up_proj")


@pytest.mark.parametrize(
    "args",
    [
        {"sft_type": "boft", "boft_block_size": 2},
        {"sft_type": "boft", "boft_block_num": 2},
        {"sft_type": "oft", "oft_r": 2},
        {"sft_type": "c3a", "block_size": 2},
        {"sft_type": "fourierft", "n_frequency": 4},
        {"sft_type": "vera"},
    ],
)
def test_a_number_that_fits_is_taken(tmp_path: Path, args: dict[str, Any]) -> None:
    write_model(tmp_path / "model")
    assert plan(tmp_path, **args) == ""


def test_qalora_needs_a_base_of_gptq(tmp_path: Path) -> None:
    write_model(tmp_path / "model")
    for args in ({"sft_type": "qalora"}, {"use_qalora": True}):
        text = plan(tmp_path, **args)
        assert "model does not hold GPTQ's weights, which qalora goes with\n  expected: use_qalora: false" in text
        assert "hint: `cmd: export` with quant_method: gptq makes such a model" in text


def test_a_method_for_a_few_architectures_is_refused_on_others(tmp_path: Path) -> None:
    args: dict[str, Any] = {"sft_type": "adaption_prompt", "adapter_len": 4, "adapter_layers": 1}
    write_model(tmp_path / "model")
    assert plan(tmp_path, **args) == ""
    write_model(tmp_path / "model", more={"model_type": "qwen2"})
    assert "peft has adaption_prompt for models of type gpt2, llama, mistral; model is none" in plan(tmp_path, **args)


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ({"target_regex": "q_proj"}, "model has no module whose full name matches 'q_proj'\n"),
        ({"sft_type": "full", "freeze_parameters": ["embed"]}, "model has no weight whose name begins with embed\n"),
        ({"sft_type": "full", "trainable_parameters_regex": "haed"}, "model has no weight whose name matches 'haed'\n"),
    ],
)
def test_names_of_modules_and_weights_that_match_nothing_are_refused(
    tmp_path: Path, args: dict[str, Any], message: str
) -> None:
    write_model(tmp_path / "model")
    assert message in plan(tmp_path, **args)


def test_names_of_modules_and_weights_that_match_are_taken(tmp_path: Path) -> None:
    write_model(tmp_path / "model")
    assert plan(tmp_path, target_regex=r".*\.q_proj") == ""
    frozen: dict[str, Any] = {"freeze_parameters": ["model.embed_tokens"], "trainable_parameters_regex": r"norm"}
    assert plan(tmp_path, sft_type="full", **frozen) == ""
