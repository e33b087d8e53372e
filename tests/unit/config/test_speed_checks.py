"""Arguments for speed that cannot take effect are refused where they were written."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from hpcbench.config.loading import load_suites
from hpcbench.errors import ConfigError
from hpcbench.schemas.arguments import SftArgs

CHUNKED, CCE = "chunked_cross_entropy", "use_cce"
FUSES_NOT = {"fused_linear_cross_entropy": False}


def load(folder: Path, *, device: str = "cuda", cmd: str = "sft", **args: Any) -> SftArgs | str:
    """Return the arguments of a suite of one training, or the text of its refusal."""
    given = {"model_type": "qwen2.5-7b-instruct", "dataset": "alpaca-en", **args}
    document = {"cmd": cmd, "device": device, "args": given, "experiment": [{"name": "a"}]}
    file = folder / "suite.json"
    file.write_text(json.dumps(document), encoding="utf-8")
    try:
        found = load_suites([file])[0].experiments[0].args
    except ConfigError as error:
        return str(error)
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"liger": True}, {"use_liger_kernel": True}),
        ({"enable_liger_kernel": "true"}, {"use_liger_kernel": True}),
        ({"cut_cross_entropy": "true"}, {"use_cce": True}),
        ({"activation_offload": "true"}, {"activation_offloading": True}),
        ({"attn_impl": "flex"}, {"attn_impl": "flex_attention"}),
        ({"attn_impl": "kernels-community/flash-attn2"}, {"attn_impl": "kernels-community/flash-attn2"}),
        (
            {"use_liger_kernel": True, "liger_kernel_config": '{"rope": false}'},
            {"liger_kernel_config": {"rope": False}},
        ),
        ({"torch_compile": True, "torch_compile_mode": "max-autotune"}, {"torch_compile_mode": "max-autotune"}),
        ({"use_liger_kernel": True, "liger_kernel_config": FUSES_NOT, CHUNKED: True}, {CHUNKED: True}),
        ({"use_liger_kernel": True, "liger_kernel_config": FUSES_NOT, "use_loss_scale": True}, {}),
    ],
)
def test_what_can_take_effect_is_taken(tmp_path: Path, given: dict[str, Any], expected: dict[str, Any]) -> None:
    args = load(tmp_path, **given)
    assert isinstance(args, SftArgs), args
    assert {name: getattr(args, name) for name in expected} == expected


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            {"use_liger_kernel": True, "device": "cpu"},
            (
                "args.use_liger_kernel: `use_liger_kernel` runs on GPUs only: its kernels are written in Triton\n"
                "  hint: remove it, or train on a GPU"
            ),
        ),
        (
            {"activation_offloading": True, "device": "cpu"},
            "`activation_offloading` runs on GPUs only: activations are in host memory anyway",
        ),
        (
            {"attn_impl": "flex_attention", "device": "cpu"},
            "args.attn_impl: flex_attention runs on GPUs only\n  expected: sdpa or eager",
        ),
        (
            {"attn_impl": "kernels-community/flash-attn2", "dtype": "fp32"},
            "args.attn_impl: kernels-community/flash-attn2 needs dtype bf16 or fp16",
        ),
        (
            {"attn_impl": "somebody/attention"},
            (
                "args.attn_impl: unknown attention 'somebody/attention'\n  expected: sdpa, eager, flash_attention_2, "
                "flash_attention_3, flex_attention, or kernels-community/NAME"
            ),
        ),
        (
            {CHUNKED: True, "use_loss_scale": True},
            (
                "`chunked_cross_entropy` takes all predicted tokens alike, and `use_loss_scale` weighs them\n"
                "  hint: remove one of them"
            ),
        ),
        (
            {"use_liger_kernel": True, "use_loss_scale": True},
            "hint: set liger_kernel_config: {fused_linear_cross_entropy: false}",
        ),
        (
            {"use_liger_kernel": True, CCE: True},
            (
                "use_liger_kernel and use_cce both replace the loss\n"
                "  hint: set liger_kernel_config: {fused_linear_cross_entropy: false}, or remove one of them"
            ),
        ),
        ({CHUNKED: True, CCE: True}, "chunked_cross_entropy and use_cce both replace the loss\n  hint: keep one"),
        (
            {"use_liger_kernel": True, "liger_kernel_config": {"cross_entropy": True}},
            "hint: set fused_linear_cross_entropy: false beside cross_entropy: true",
        ),
        (
            {"torch_compile": True, "activation_offloading": True},
            "`activation_offloading` does not see the activations of compiled code",
        ),
        ({"torch_compile_mode": "max-autotune"}, "`torch_compile_mode` has no effect"),
        (
            {"torch_compile": True, "torch_compile_backend": "aot_eager", "torch_compile_mode": "max-autotune"},
            "`torch_compile_mode` is inductor's, and `torch_compile_backend` is aot_eager, which ignores it",
        ),
        (
            {"torch_compile": True, "torch_compile_backend": "cudagraphs", "device": "cpu"},
            "`torch_compile_backend: cudagraphs` records CUDA graphs, which torch leaves out on a CPU",
        ),
        (
            {"torch_compile": True, "torch_compile_mode": "reduce-overhead", "device": "cpu"},
            "`torch_compile_mode: reduce-overhead` records CUDA graphs, which torch leaves out on a CPU",
        ),
        ({"liger_kernel_config": FUSES_NOT}, "`liger_kernel_config` has no effect"),
        ({"chunked_cross_entropy_num_chunks": 4}, "`chunked_cross_entropy_num_chunks` has no effect"),
        (
            {"use_galore": True, "sft_type": "full", "optim": "adamw_torch_fused"},
            "args.optim: `use_galore` has an AdamW of its own, which is not fused\n  expected: adamw_torch",
        ),
        (
            {CHUNKED: True, "cmd": "rlhf", "rlhf_type": "dpo"},
            "`chunked_cross_entropy` replaces the loss of supervised fine-tuning, and this is `rlhf_type: dpo`",
        ),
    ],
)
def test_what_cannot_take_effect_is_refused(tmp_path: Path, given: dict[str, Any], message: str) -> None:
    text = load(tmp_path, **given)
    assert isinstance(text, str), text
    assert message in text
