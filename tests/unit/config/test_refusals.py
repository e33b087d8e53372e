"""What the documents name and this version does not do: each is refused with its reason and what to do instead."""

from __future__ import annotations

from pathlib import Path

import pytest

from hpcbench.config.aliases import UNSUPPORTED_TUNERS
from hpcbench.config.refused_arguments import REFUSED
from hpcbench.schemas.arguments import SftArgs
from tests.support.swift_names import fate_of
from tests.unit.config.test_ms_swift_arguments import load_with

ASKING = {"streaming_buffer_size": "64", "quant_n_samples": "128", "quant_seqlen": "512"}


@pytest.mark.parametrize("name", sorted(name for name in REFUSED if fate_of(name)[0] == "refused"))
def test_a_refused_argument_has_its_reason_and_a_way_on(tmp_path: Path, name: str) -> None:
    text = load_with(tmp_path, **{name: ASKING.get(name, "something")})
    assert isinstance(text, str)
    reason = text.partition(f"`{name}` is known but not supported by this version: ")[2]
    assert len(reason.splitlines()[0].split()) >= 4, text
    assert "hint: " in text


@pytest.mark.parametrize("name", sorted(name for name in REFUSED if fate_of(name)[0] == "refused"))
def test_a_value_that_asks_for_nothing_is_taken(tmp_path: Path, name: str) -> None:
    for value in REFUSED[name].idle:
        found = load_with(tmp_path, **{name: value})
        assert isinstance(found, SftArgs), found


@pytest.mark.parametrize("word", sorted(UNSUPPORTED_TUNERS))
def test_a_refused_method_has_a_reason(tmp_path: Path, word: str) -> None:
    text = load_with(tmp_path, sft_type=word)
    assert isinstance(text, str)
    assert f"hint: {UNSUPPORTED_TUNERS[word]}" in text


def test_arguments_of_ms_swifts_scripts_are_honored(tmp_path: Path) -> None:
    rows = tmp_path / "mine.jsonl"
    rows.write_text('{"query": "a", "response": "b"}\n', encoding="utf-8")
    given = {"custom_val_dataset_path": "mine.jsonl", "lora_bias_trainable": "all", "modules_to_save": "norm,ln_f"}
    found = load_with(tmp_path, **given, init_lora_weights="gaussian")
    assert isinstance(found, SftArgs), found
    assert found.val_dataset == (str(rows),)
    assert (found.lora_bias_trainable, found.lora_modules_to_save) == ("all", ("norm", "ln_f"))
    assert found.init_lora_weights == "gaussian"
    found = load_with(tmp_path, quantization_bit="4", bnb_4bit_compute_dtype="float16")
    assert isinstance(found, SftArgs), found
    assert found.bnb_4bit_comp_dtype == "fp16"
