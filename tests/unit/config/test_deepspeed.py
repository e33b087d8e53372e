"""`deepspeed`: which names and files are taken, and what plan refuses before anything is queued."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from hpcbench.catalog.deepspeed import DEEPSPEED_WORDS, read_deepspeed
from hpcbench.config.loading import load_suites
from hpcbench.errors import ConfigError
from hpcbench.plan.fingerprint import input_paths
from hpcbench.plan.requests import plan_suite
from hpcbench.schemas.arguments import SftArgs

ZERO_2 = {"zero_optimization": {"stage": 2}, "train_micro_batch_size_per_gpu": "auto"}


def load_with(folder: Path, *, requirements: dict[str, int] | None = None, **args: Any) -> SftArgs | str:
    """Return the arguments of a suite that asks for two ranks, or the text of its refusal."""
    (folder / "rows.jsonl").write_text('{"query": "a", "response": "b"}\n' * 4, encoding="utf-8")
    suite = {
        "cmd": "sft",
        "requirements": requirements or {"gpu": 2, "ddp": 2},
        "args": {"model_type": "qwen2.5-7b-instruct", "dataset": "rows.jsonl", **args},
        "experiment": [{"name": "a"}],
    }
    path = folder / "demo.json"
    path.write_text(json.dumps(suite), encoding="utf-8")
    try:
        (found,) = load_suites([path])
    except ConfigError as error:
        return str(error)
    args_found = found.experiments[0].args
    assert args_found is not None
    return args_found


def write_file(folder: Path, **changes: Any) -> str:
    path = folder / "mine.json"
    path.write_text(json.dumps({**ZERO_2, **changes}), encoding="utf-8")
    return "mine.json"


@pytest.mark.parametrize(
    ("written", "name"),
    [("zero2", "zero2"), ("default-zero2", "zero2"), ("zero2-offload", "zero2_offload"), ("zero0", "zero0")],
)
def test_a_name_of_swift_is_a_configuration_of_hpcbench(tmp_path: Path, written: str, name: str) -> None:
    found = load_with(tmp_path, deepspeed=written)
    assert isinstance(found, SftArgs), found
    assert found.deepspeed == name


def test_deepspeed_config_path_is_the_name_of_swift_2_for_a_file(tmp_path: Path) -> None:
    found = load_with(tmp_path, deepspeed_config_path=write_file(tmp_path))
    assert isinstance(found, SftArgs), found
    assert found.deepspeed == str(tmp_path / "mine.json")


def test_a_file_is_an_input_of_the_job(tmp_path: Path) -> None:
    load_with(tmp_path, deepspeed=write_file(tmp_path))
    (suite,) = load_suites([tmp_path / "demo.json"])
    (request,) = plan_suite(suite, save_dir=tmp_path, inputs={})
    assert str(tmp_path / "mine.json") in input_paths(request)


@pytest.mark.parametrize("name", DEEPSPEED_WORDS)
def test_what_ships_leaves_the_arguments_to_the_suite(name: str) -> None:
    config = read_deepspeed(name)
    assert config.stage == int(name[4])
    assert config.offloads_optimizer == name.endswith("offload")
    assert config.offloads_weights == (name == "zero3_offload")
    assert config.values.keys().isdisjoint({"optimizer", "scheduler"})
    assert config.values["gradient_clipping"] == "auto"


@pytest.mark.parametrize(
    ("args", "requirements", "expected"),
    [
        ({"deepspeed": "ds_config/zero2.json"}, None, "hint: deepspeed: zero2 is in hpcbench"),
        ({"deepspeed": "zero2"}, {"gpu": 1, "ddp": 1}, "shares a training among ranks, and ddp is 1"),
        ({"deepspeed": "zero2", "use_galore": True, "sft_type": "full"}, None, "`deepspeed` does not train `galore`"),
        ({"deepspeed": "zero2", "sft_type": "adalora"}, None, "`deepspeed` does not train `adalora`"),
        ({"deepspeed": "zero2", "tuner_backend": "unsloth"}, None, "tuner_backend unsloth, which trains on one GPU"),
        (
            {"deepspeed": "zero2", "lora_lr_ratio": 16},
            None,
            "`lora_lr_ratio` makes an optimizer of its own",
        ),
        ({"deepspeed": "zero2", "optim": "adafactor"}, None, "ZeRO gives an optimizer flat pieces of many weights"),
        ({"deepspeed": "zero2", "lora_dtype": "fp32"}, None, "hint: set lora_dtype: bf16"),
        ({"deepspeed": "zero2", "ddp_broadcast_buffers": True}, None, "has no effect with `deepspeed`"),
        ({"deepspeed": "zero2", "quantization_bit": 4}, None, "`quantization_bit` is not tried with `deepspeed`"),
        ({"deepspeed": "zero3", "packing": True}, None, "hint: take deepspeed: zero2, or remove packing"),
        ({"deepspeed": "zero2", "fsdp": "full_shard"}, None, "`fsdp` says too what ranks share"),
    ],
)
def test_what_deepspeed_cannot_train_is_refused(
    tmp_path: Path, args: dict[str, Any], requirements: dict[str, int] | None, expected: str
) -> None:
    assert expected in str(load_with(tmp_path, requirements=requirements, **args))


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"optimizer": {"type": "AdamW"}}, "has a section `optimizer`, which arguments decide here"),
        ({"train_micro_batch_size_per_gpu": 8}, "has train_micro_batch_size_per_gpu: 8, and the arguments say 1"),
        ({"fp16": {"enabled": True}}, "has fp16.enabled: True, and the arguments say False"),
        ({"zero_optimization": {"stage": 4}}, "zero_optimization.stage is 4"),
        ({"zero_optimization": {"stage": 2, "offload_optimizer": {"device": "nvme"}}}, "offloads to 'nvme'"),
    ],
)
def test_a_file_that_decides_what_arguments_do_is_refused(
    tmp_path: Path, changes: dict[str, Any], expected: str
) -> None:
    assert expected in str(load_with(tmp_path, deepspeed=write_file(tmp_path, **changes)))


def test_a_file_that_agrees_with_the_arguments_is_taken(tmp_path: Path) -> None:
    name = write_file(tmp_path, train_micro_batch_size_per_gpu=1, gradient_clipping=1.0, bf16={"enabled": True})
    assert isinstance(load_with(tmp_path, deepspeed=name), SftArgs)
