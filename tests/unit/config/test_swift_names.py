"""No argument that SWIFT 2.4 or ms-swift 4 declares is unknown: it is honored, mapped, or refused with a way on."""

from __future__ import annotations

import ast
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from hpcbench.config.commands import COMMANDS
from hpcbench.config.layers import ARGUMENTS
from hpcbench.config.loading import load_suites
from hpcbench.config.refused_arguments import FORBIDDEN, REFUSED, REFUSED_VALUES, WITHOUT_EFFECT
from hpcbench.errors import ConfigError
from hpcbench.plan.fingerprint import input_paths
from hpcbench.plan.requests import plan_suite
from hpcbench.schemas.arguments import ExportArgs, InferArgs, SftArgs
from hpcbench.schemas.suite import Suite
from hpcbench.schemas.tuners import peft_arguments
from tests.support.model_folders import write_model
from tests.support.swift_names import SwiftName, fate_of, load_names

COMMAND_OF = {"Infer": "infer", "Export": "export", "Eval": "eval", "Pt": "pt", "Pretrain": "pt", "RLHF": "rlhf"}
"""Class -> the command that has its arguments; the others' are of `sft`."""
GROUPS = sorted({(name.release, name.group) for name in load_names()})


def load_with(folder: Path, argument: SwiftName | str, value: Any, *, cmd: str = "sft", **args: Any) -> Suite | str:
    """Return the suite with this argument, or the text of its refusal."""
    name = argument if isinstance(argument, str) else argument.name
    rows = folder / "rows.jsonl"
    if not rows.exists():
        rows.write_text('{"query": "a", "response": "b"}\n' * 4, encoding="utf-8")
    given = {"model_type": "qwen2.5-7b-instruct", "dataset": "rows.jsonl", "max_steps": 100, **args}
    if cmd == "rlhf":
        given["rlhf_type"] = "dpo"
    if name in {"model", "model_id_or_path", "model_cache_dir"}:
        del given["model_type"]
    if name == "custom_train_dataset_path":
        del given["dataset"]
    suite = {"cmd": cmd, "args": {**given, name: value}, "experiment": [{"name": "a"}]}
    if cmd == "eval" and name != "eval_dataset":
        suite["eval_dataset"] = ["arc"]
    path = folder / "demo.json"
    path.write_text(json.dumps(suite), encoding="utf-8")
    try:
        return load_suites([path])[0]
    except ConfigError as error:
        return str(error)


def command_of(argument: SwiftName) -> str:
    cmd = COMMAND_OF.get(argument.group.removesuffix("Arguments"), "sft")
    return cmd if cmd in COMMANDS else "sft"


def asking_value(argument: SwiftName) -> Any:
    """Return a value of the argument's type that is not its default."""
    kind, default = argument.type.strip("[]"), ast.literal_eval(argument.default)
    if kind == "bool":
        return not default
    if kind == "int":
        return (default or 0) + 2
    if kind == "float":
        return 0.5 if default != 0.5 else 0.25
    if "'" in kind:
        choices = ast.literal_eval(argument.type)
        choices = choices[0] if isinstance(choices[0], list) else choices
        return next(choice for choice in choices if choice not in {default, None})
    return "rows.jsonl" if "dataset" in argument.name else "something"


@pytest.mark.parametrize(("release", "group"), GROUPS)
def test_no_argument_is_unknown(tmp_path: Path, release: str, group: str) -> None:
    unknown = []
    for argument in load_names():
        if (argument.release, argument.group) != (release, group):
            continue
        for value in (asking_value(argument), ast.literal_eval(argument.default)):
            found = load_with(tmp_path, argument, value, cmd=command_of(argument))
            if isinstance(found, str) and ("unknown argument" in found or "unknown key" in found):
                unknown.append((argument.name, value, found))
    assert unknown == []


@pytest.mark.parametrize(("release", "group"), GROUPS)
def test_every_word_that_a_release_lists_is_taken_or_refused_with_a_way_on(
    tmp_path: Path, release: str, group: str
) -> None:
    unknown = []
    for argument in load_names():
        choices = ast.literal_eval(argument.type) if argument.type.startswith("['") else []
        if (argument.release, argument.group) != (release, group):
            continue
        for word in choices:
            text = load_with(tmp_path, argument, word, cmd=command_of(argument))
            if isinstance(text, str) and ("unknown value" in text or "hint: " not in text):
                unknown.append((argument.name, word, text))
    assert [found for found in unknown if "rejected_response" not in found[2]] == []


@pytest.mark.parametrize(("name", "word"), [(name, word) for name in REFUSED_VALUES for word in REFUSED_VALUES[name]])
def test_a_refused_word_says_why_and_what_instead(tmp_path: Path, name: str, word: str) -> None:
    why, instead = REFUSED_VALUES[name][word]
    cmd = "infer" if name == "infer_backend" else "sft"
    text = load_with(tmp_path, name, word, cmd=cmd)
    assert f"`{name}: {word}` is known but not supported by this version: {why}\n  hint: {instead}" in str(text)


def test_the_bits_of_a_base_have_another_name_in_ms_swift_4(tmp_path: Path) -> None:
    found = load_with(tmp_path, "quant_bits", 4, quant_method="bnb")
    assert isinstance(found, Suite), found
    args = found.experiments[0].args
    assert args is not None
    assert args.quantization_bit == 4


@pytest.mark.parametrize("name", sorted({name.name for name in load_names()} & REFUSED.keys()))
def test_a_refused_argument_says_why_and_what_instead(tmp_path: Path, name: str) -> None:
    argument = next(each for each in load_names() if each.name == name)
    if fate_of(name)[0] != "refused":
        return
    candidates = (asking_value(argument), False, "something")
    value = next(each for each in candidates if str(each).lower() not in REFUSED[name].idle)
    text = load_with(tmp_path, argument, value, cmd=command_of(argument))
    assert isinstance(text, str)
    assert f"`{name}` is known but not supported by this version: {REFUSED[name].why}" in text
    assert f"hint: {REFUSED[name].instead}" in " ".join(text.split())


@pytest.mark.parametrize("name", sorted(WITHOUT_EFFECT))
def test_an_argument_that_changes_nothing_is_taken_and_plan_says_so(tmp_path: Path, name: str) -> None:
    found = load_with(tmp_path, name, True)
    assert isinstance(found, Suite), found
    assert f"`{name}` changes nothing: {WITHOUT_EFFECT[name]}" in found.remarks


@pytest.mark.parametrize("name", sorted(FORBIDDEN.keys() - ARGUMENTS))
def test_where_results_go_is_not_for_a_suite(tmp_path: Path, name: str) -> None:
    text = load_with(tmp_path, name, "somewhere")
    assert isinstance(text, str)
    assert f"`{name}` cannot be set in a suite" in text
    assert "--save-dir" in text


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("loss_scale", "default", {"loss_on_all_rounds": True, "use_loss_scale": False}),
        ("loss_scale", "last_round", {"loss_on_all_rounds": False}),
        ("loss_scale", "react", {"loss_on_all_rounds": True, "use_loss_scale": True, "agent_template": "react"}),
        ("bf16", True, {"dtype": "bf16"}),
        ("bf16", False, {"dtype": "bf16"}),
        ("load_in_4bit", True, {"quantization_bit": 4}),
        ("load_in_8bit", "true", {"quantization_bit": 8}),
        ("strict", True, {"check_dataset_strategy": "error"}),
        ("strict", False, {"check_dataset_strategy": "discard"}),
        ("use_chat_template", False, {"template_type": "default-generation"}),
        ("use_chat_template", True, {"template_type": None}),
        ("tools_prompt", "react_en", {"agent_template": "react"}),
        ("template_type", "AUTO", {"template_type": None}),
        ("dtype", "AUTO", {"dtype": "bf16"}),
        ("lorap_lr_ratio", 16.0, {"lora_lr_ratio": 16.0}),
        ("data_seed", 7, {"dataset_split_seed": 7}),
        ("neftune_alpha", 5, {"neftune_noise_alpha": 5.0}),
        ("model_cache_dir", "Qwen/Qwen2.5-0.5B", {"model_id_or_path": "Qwen/Qwen2.5-0.5B"}),
    ],
)
def test_a_word_of_another_release_means_arguments_of_hpcbench(
    tmp_path: Path, name: str, value: Any, expected: dict[str, Any]
) -> None:
    found = load_with(tmp_path, name, value)
    assert isinstance(found, Suite), found
    args = found.experiments[0].args
    assert {key: getattr(args, key) for key in expected} == expected


def test_words_that_contradict_each_other_are_refused(tmp_path: Path) -> None:
    text = load_with(tmp_path, "bf16", value=True, dtype="fp32")
    assert "`bf16: true` contradicts `dtype: 'fp32'`" in str(text)
    assert isinstance(load_with(tmp_path, "bf16", value=True, dtype="bfloat16"), Suite)


def test_arguments_of_swifts_eval_go_where_they_belong(tmp_path: Path) -> None:
    found = load_with(tmp_path, "eval_limit", 5, cmd="eval", eval_few_shot=2)
    assert isinstance(found, Suite), found
    args = found.experiments[0].eval_args["arc"]
    assert (args.limit, args.num_fewshot) == (5, 2)
    found = load_with(tmp_path, "eval_dataset", ["gsm8k"], cmd="eval")
    assert isinstance(found, Suite), found
    assert found.experiments[0].eval_dataset == ("gsm8k",)


@pytest.mark.parametrize("name", sorted(ExportArgs.model_fields.keys() | InferArgs.model_fields.keys()))
def test_an_argument_of_another_command_is_refused_with_a_way_on_and_its_default_taken(
    tmp_path: Path, name: str
) -> None:
    if name in SftArgs.model_fields or name in peft_arguments():
        return
    text = load_with(tmp_path, name, ["something"] if name == "lora_modules" else "something")
    assert isinstance(text, str)
    assert f"`{name}` is only for `cmd: " in text
    assert "hint: " in text
    group = ExportArgs if name in ExportArgs.model_fields else InferArgs
    default = group.model_fields[name].get_default(call_default_factory=True)
    if name not in FORBIDDEN:
        found = load_with(tmp_path, name, list(default) if isinstance(default, tuple) else default)
        assert isinstance(found, Suite), found


def load_document(folder: Path, **keys: Any) -> Suite | str:
    """Return a suite of these keys, at the top and in its experiment, or the text of its refusal."""
    document = {"cmd": "sft", "args": {"model_type": "qwen2.5-7b-instruct", "dataset": "alpaca-en"}}
    entry = {"name": "a", **keys.pop("experiment", {})}
    path = folder / "demo.json"
    path.write_text(json.dumps({**document, "experiment": [entry], **keys}), encoding="utf-8")
    try:
        return load_suites([path])[0]
    except ConfigError as error:
        return str(error)


def test_info_may_be_a_sentence_or_a_mapping(tmp_path: Path) -> None:
    found = load_document(tmp_path, info={"seen": "today"}, experiment={"info": "lora without mixed rows"})
    assert isinstance(found, Suite), found
    assert found.experiments[0].info == {"seen": "today", "text": "lora without mixed rows"}


def test_comments_in_swifts_files_are_left_out_and_plan_says_so(tmp_path: Path) -> None:
    found = load_document(tmp_path, comment="x", experiment={"why_so": "the largest rank that fits"})
    assert isinstance(found, Suite), found
    for key in ("comment", "why_so"):
        assert f"`{key}` is not read: it is taken for a comment, as SWIFT ignores it" in found.remarks


@pytest.mark.parametrize("keys", [{"argss": "a b"}, {"partition": "gpu"}, {"qos": "high"}, {"seed": "1"}, {"top": 3}])
def test_a_setting_in_the_wrong_place_is_no_comment(tmp_path: Path, keys: dict[str, Any]) -> None:
    assert f"unknown key '{next(iter(keys))}'" in str(load_document(tmp_path, **keys))


def test_a_name_with_a_slash_becomes_one_of_a_folder(tmp_path: Path) -> None:
    found = load_document(tmp_path, experiment={"name": "lora/no_mix"})
    assert isinstance(found, Suite), found
    assert found.experiments[0].name == "lora-no_mix"
    assert "experiment 'lora/no_mix' is called lora-no_mix: its name is that of a folder" in found.remarks


def test_the_content_of_a_file_counts_however_many_of_its_rows_are_drawn(tmp_path: Path) -> None:
    found = load_with(tmp_path, "dataset", ["rows.jsonl#2"])
    assert isinstance(found, Suite), found
    (request,) = plan_suite(found, save_dir=Path("/logs"), inputs={})
    assert str(tmp_path / "rows.jsonl") in input_paths(request)


@pytest.mark.parametrize(
    ("args", "requirements", "expected"),
    [
        (
            {"device_max_memory": "20GiB"},
            {"gpu": 1},
            "each rank has one at most\n  hint: set requirements.gpu: 2 or more",
        ),
        ({"device_max_memory": "20GiB 9GiB"}, {"gpu": 4}, "2 sizes for 4 GPUs\n  expected: 4 sizes"),
        ({"device_max_memory": ["20", "9GiB"]}, {"gpu": 2}, "got '20'\n  expected: sizes such as 20GiB"),
        ({"model_revision": "v1", "model_id_or_path": "folder"}, {"gpu": 1}, "`model_revision` has no effect"),
    ],
)
def test_what_a_model_cannot_be_loaded_with_is_refused(
    tmp_path: Path, args: dict[str, Any], requirements: dict[str, int], expected: str
) -> None:
    write_model(tmp_path / "folder")
    args = {"model_type": "qwen2.5-7b-instruct", "dataset": "alpaca-en", **args}
    assert expected in str(load_document(tmp_path, args=args, requirements=requirements))


def test_a_model_is_loaded_as_it_is_asked_for(tmp_path: Path) -> None:
    wanted = {"device_max_memory": ["20GiB", "40GB"], "model_revision": "v1.0", "rope_scaling": "dynamic"}
    args = {"model_type": "qwen2.5-7b-instruct", "dataset": "alpaca-en", **wanted}
    found = load_document(tmp_path, args=args, requirements={"gpu": 2})
    assert isinstance(found, Suite), found
    made = found.experiments[0].args
    assert made is not None
    assert made.device_max_memory == ("20GiB", "40GB")
    assert (made.model_revision, made.rope_scaling) == ("v1.0", "dynamic")


FOLLOWED: Mapping[str, Mapping[str, Mapping[str, Any]]] = {
    "streaming": {"args": {"lazy_tokenize": True, "train_dataset_sample": 3}},
    "download_mode": {},
    "loss_scale_config_path": {"args": {"agent_template": "react", "use_loss_scale": True}},
    "padding_free": {"args": {"packing": True}},
    "response_prefix": {"args": {"template_type": "chatml"}},
    "sequence_parallel_size": {"args": {"max_length": 512, "gradient_checkpointing": True}},
    "auto_find_batch_size": {"args": {"batch_size": 2, "test_oom_error": True}},
    "ignore_data_skip": {"args": {"resume_from_checkpoint": "checkpoint", "resume_only_model": True}},
    "device_map": {"requirements": {"gpu": 2, "ddp": 1}, "args": {"device_max_memory": ["20GiB", "20GiB"]}},
    "max_memory": {"requirements": {"gpu": 2}, "args": {"device_max_memory": ["20GiB", "20GiB"]}},
    "hqq_axis": {"args": {"quantization_bit": 8}},
    "eval_generation_config": {"eval_args": {"gen_kwargs": {"max_gen_toks": 64, "do_sample": False}}},
    "eval_num_proc": {"eval_args": {"batch_size": 4}},
    "custom_dataset_info": {"args": {"dataset_info": "dataset_info.json", "dataset": "mine"}},
    "self_cognition_sample": {"args": {"dataset": ["alpaca-en", "rows.jsonl"]}},
}
"""Refused argument -> the keys of a suite that follow its hint."""


@pytest.mark.parametrize("name", sorted(FOLLOWED))
def test_what_a_refusal_says_to_do_instead_is_taken(tmp_path: Path, name: str) -> None:
    (tmp_path / "rows.jsonl").write_text('{"query": "a", "response": "b"}\n' * 4, encoding="utf-8")
    registry = {"mine": {"file_name": "rows.jsonl", "columns": {"prompt": "query", "response": "response"}}}
    (tmp_path / "dataset_info.json").write_text(json.dumps(registry), encoding="utf-8")
    (tmp_path / "checkpoint").mkdir()
    (tmp_path / "checkpoint" / "adapter_model.safetensors").touch()
    keys = FOLLOWED[name]
    args = {"model_type": "qwen2.5-7b-instruct", "dataset": "alpaca-en", **keys.get("args", {})}
    refused = load_document(tmp_path, args={"model_type": args["model_type"], "dataset": "alpaca-en", name: "x"})
    assert f"hint: {REFUSED[name].instead}" in str(refused)
    found = load_document(tmp_path, **{**keys, "args": args})
    assert isinstance(found, Suite), found
