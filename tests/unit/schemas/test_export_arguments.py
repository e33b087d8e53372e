"""Arguments of an export: SWIFT's words, and what contradicts itself before any file is read."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from hpcbench.schemas.arguments import ExportArgs


def test_swifts_words_come_as_text() -> None:
    args = ExportArgs.model_validate(
        {
            "quant_bits": "8",
            "quant_method": "gptq",
            "quant_n_samples": "64",
            "quant_seqlen": "512",
            "quant_batch_size": "2",
            "quant_device_map": "auto",
            "group_size": "-1",
            "max_shard_size": "10GB",
            "safe_serialization": "true",
        }
    )
    assert (args.quant_bits, args.quant_n_samples, args.group_size) == (8, 64, -1)
    assert args.calibrates


def test_swifts_defaults() -> None:
    args = ExportArgs(quant_bits=4)
    found = (args.quant_method, args.quant_n_samples, args.quant_seqlen, args.quant_batch_size, args.group_size)
    assert found == ("awq", 256, 2048, 1, 128)
    assert not ExportArgs(quant_bits=4, quant_method="bnb").calibrates


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({}, "nothing to export: set quant_bits, or merge an adapter with ckpt_from or ckpt_dir"),
        ({"ckpt_dir": "/a", "merge_lora": False}, "nothing to export: set quant_bits, or merge an adapter"),
        ({"merge_lora": True}, "merge_lora merges the adapter of a checkpoint: give ckpt_from or ckpt_dir"),
        ({"ckpt_dir": "/a", "ckpt_from": "lora"}, "ckpt_from and ckpt_dir both say what is exported"),
        ({"ckpt_dir": "/a", "checkpoint": "best"}, "checkpoint chooses among those of ckpt_from"),
        ({"quant_bits": 8}, "quant_method awq has no 8 bits: set quant_bits to 4"),
        ({"quant_bits": 2, "quant_method": "bnb"}, "quant_method bnb has no 2 bits: set quant_bits to 4, 8"),
        ({"quant_bits": 4, "group_size": -1}, "awq shares scales between neighboring weights: set group_size to 16"),
        ({"quant_bits": 4, "max_shard_size": "5"}, "give a whole number with MB, GB, MiB or GiB"),
        (
            {"quant_bits": 4, "safe_serialization": False},
            "safe_serialization: transformers 5 and gptqmodel write safetensors",
        ),
    ],
)
def test_contradictions_are_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        ExportArgs.model_validate(values)


def test_a_training_of_the_suite_is_exported_by_name_alone() -> None:
    assert ExportArgs(ckpt_from="lora").merge_lora is None
