"""`tuner_backend: unsloth`: what it trains is planned, what it would leave out is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.suite_writer import HEAD, load_one, refusal


def suite(more: str = "", *, gpu: int = 1, ddp: int = 1) -> str:
    """Return a suite of one experiment, with further arguments."""
    args = f"{{tuner_backend: unsloth{more and ', ' + more}}}"
    return HEAD + f"requirements: {{gpu: {gpu}, ddp: {ddp}}}\nexperiment: [{{name: a, args: {args}}}]\n"


@pytest.mark.parametrize(
    "more",
    [
        "",
        "sft_type: full",
        "use_rslora: true, lora_lr_ratio: 16, lora_rank: 4, lora_target_modules: ALL, neftune_noise_alpha: 5",
        "quantization_bit: 4",
        "gradient_checkpointing: true, predict_with_generate: true",
    ],
)
def test_what_unsloth_trains_is_planned(more: str, tmp_path: Path) -> None:
    experiment = load_one(tmp_path, suite(more))
    assert experiment.args is not None
    assert experiment.args.tuner_backend == "unsloth"


INSTEAD = "\n  hint: remove one of them; tuner_backend: peft trains both"
DOES_NOT = "`tuner_backend: unsloth` does not train `{}`\n  expected: lora or full\n  hint: take tuner_backend: peft"


@pytest.mark.parametrize(
    ("more", "key", "message"),
    [
        ("sft_type: adalora", "sft_type", DOES_NOT.format("adalora")),
        ("sft_type: llamapro", "sft_type", DOES_NOT.format("llamapro")),
        ("use_dora: true", "use_dora", "`use_dora` has no effect with `tuner_backend: unsloth`" + INSTEAD),
        (
            "sft_type: full, lisa_activated_layers: 2",
            "lisa_activated_layers",
            "`lisa_activated_layers` has no effect with `tuner_backend: unsloth`" + INSTEAD,
        ),
        (
            "packing: true",
            "packing",
            "`packing` with `tuner_backend: unsloth`, which would let the samples of a pack see each other" + INSTEAD,
        ),
        (
            "attn_impl: sdpa",
            "attn_impl",
            "`attn_impl` with `tuner_backend: unsloth`, which chooses its attention itself" + INSTEAD,
        ),
        (
            "quantization_bit: 8",
            "quantization_bit",
            "`tuner_backend: unsloth` quantizes to 4 bits alone\n  expected: 4 or 0\n  hint: or take tuner_backend: peft",
        ),
    ],
)
def test_what_unsloth_would_leave_out_is_refused(more: str, key: str, message: str, tmp_path: Path) -> None:
    assert f"demo.yaml:4: experiment[a].args.{key}: {message}" in refusal(tmp_path, suite(more))


def test_unsloth_trains_on_one_gpu(tmp_path: Path) -> None:
    assert refusal(tmp_path, suite(gpu=4, ddp=4)) == (
        "demo.yaml:4: experiment[a].args.tuner_backend: `tuner_backend: unsloth` trains on one GPU, not on gpu 4 with "
        "ddp 4\n  expected: requirements: {gpu: 1, ddp: 1}"
    )
