"""Training arguments that would run as something else are refused where they were written."""

from __future__ import annotations

from pathlib import Path

import pytest

from hpcbench.schemas.arguments import SftArgs
from hpcbench.storage.json_files import write_json
from hpcbench.storage.paths import TRAINER_STATE
from tests.unit.config.test_ms_swift_arguments import load_with


def refusal(folder: Path, **given: str) -> str:
    text = load_with(folder, **given)
    assert isinstance(text, str), text
    return text


@pytest.mark.parametrize(
    ("given", "found"),
    [
        ({"attn_impl": "eager"}, ("eager", None)),
        ({"attn_implementation": "sdpa"}, ("sdpa", None)),
        ({"attn_impl": "flash_attn"}, ("flash_attention_2", None)),
        ({"attn_impl": "eager", "use_flash_attn": "false"}, ("eager", False)),
        ({"use_flash_attn": "flash_attention_2"}, (None, True)),
        ({"attn_impl": "auto"}, (None, None)),
    ],
)
def test_an_attention_that_is_named_is_the_one_that_is_asked_for(
    tmp_path: Path, given: dict[str, str], found: tuple[str | None, bool | None]
) -> None:
    args = load_with(tmp_path, **given)
    assert isinstance(args, SftArgs), args
    assert (args.attn_impl, args.use_flash_attn) == found


def test_two_attentions_that_contradict_each_other_are_refused(tmp_path: Path) -> None:
    text = refusal(tmp_path, attn_impl="eager", use_flash_attn="true")
    assert "attn_impl eager contradicts use_flash_attn true\n  hint: give one of them" in text


def test_flash_attention_by_name_needs_half_precision(tmp_path: Path) -> None:
    text = refusal(tmp_path, attn_impl="flash_attention_2", dtype="fp32")
    assert "args.attn_impl: flash_attention_2 needs dtype bf16 or fp16" in text
    assert "expected: sdpa or eager" in text


@pytest.mark.parametrize(
    "given", [{"warmup_ratio": "1"}, {"max_steps": "1"}, {"max_steps": "3", "warmup_ratio": "0.9"}]
)
def test_a_polynomial_schedule_needs_steps_after_the_warm_up(tmp_path: Path, given: dict[str, str]) -> None:
    text = refusal(tmp_path, lr_scheduler_type="polynomial", **given)
    assert (
        "args.lr_scheduler_type: `lr_scheduler_type: polynomial` has nothing to decay over: all steps warm up" in text
    )
    assert isinstance(load_with(tmp_path, lr_scheduler_type="polynomial", warmup_ratio="0", max_steps="1"), SftArgs)


@pytest.mark.parametrize("given", [{"dataset_test_ratio": "0"}, {"val_dataset_sample": "0"}])
def test_generated_answers_need_validation_prompts(tmp_path: Path, given: dict[str, str]) -> None:
    text = refusal(tmp_path, predict_with_generate="true", **given)
    assert "`predict_with_generate` answers the validation prompts, and there is no validation split" in text


def test_a_checkpoint_that_is_not_behind_the_last_step_leaves_something_to_train(tmp_path: Path) -> None:
    folder = tmp_path / "last"
    folder.mkdir()
    given = {"resume_from_checkpoint": str(folder), "max_steps": "50"}
    assert f"{folder} holds no training state ({TRAINER_STATE})" in refusal(tmp_path, **given)
    write_json(folder / TRAINER_STATE, {"global_step": 50})
    text = refusal(tmp_path, **given)
    assert "args.max_steps: the checkpoint is at step 50, and max_steps 50 leaves nothing to train" in text
    assert "expected: more than 50 steps" in text
    write_json(folder / TRAINER_STATE, {"global_step": 49})
    assert isinstance(load_with(tmp_path, **given), SftArgs)
