"""What users of other tools type: taken as it is, or refused with what hpcbench has in its place."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from hpcbench.config.other_tools import OTHER_COMMANDS, OTHER_OPTIONS, OTHER_VERBS
from tests.support.suite_writer import load, refusal
from tests.support.typed_commands import run_here


def write_command_suite(folder: Path, name: str = "demo.json", **experiment: object) -> Path:
    file = folder / name
    value = {"cmd": "command", "args": {"command": ["true"]}, "experiment": [{"name": "a", **experiment}]}
    file.write_text(json.dumps({**value, "device": "cpu"}), encoding="utf-8")
    return file


@pytest.mark.parametrize("verb", sorted(OTHER_COMMANDS))
def test_a_command_of_another_tool_says_why_it_is_not_there_and_what_is(verb: str) -> None:
    ended = run_here(verb, "--ckpt_dir", "x")
    other = OTHER_COMMANDS[verb]
    end = "1 problem found; nothing was submitted\n"
    assert (ended.code, ended.err) == (2, f"hpcbench {verb}: {other.why}\n  hint: {other.typed}\n{end}")


@pytest.mark.parametrize("verb", sorted(OTHER_VERBS))
def test_a_verb_under_another_name_names_the_right_one(verb: str) -> None:
    assert f"  hint: {OTHER_VERBS[verb]}\n" in run_here(verb).err


def test_a_suite_without_a_verb_is_told_the_verb(tmp_path: Path) -> None:
    assert "  hint: hpcbench submit 'my suite.yaml'\n" in run_here("my suite.yaml").err


@pytest.mark.parametrize("cmd", sorted(OTHER_COMMANDS))
def test_a_command_of_another_tool_in_a_suite_has_its_reason(tmp_path: Path, cmd: str) -> None:
    text = refusal(tmp_path, f"cmd: {cmd}\nexperiment: [{{name: a}}]\n")
    other = OTHER_COMMANDS[cmd]
    assert f"`cmd: {cmd}` is known but not supported by this version: {other.why}\n" in text
    assert f"  hint: {other.in_suite}" in text


def test_options_are_taken_with_underscores_too(tmp_path: Path) -> None:
    file = write_command_suite(tmp_path)
    ended = run_here("plan", str(file), "--cluster=local", "--save_dir", str(tmp_path / "logs"), "--max_jobs=1")
    assert ended.code == 0, ended.err
    assert "1 job in 1 submission" in ended.out


@pytest.mark.parametrize("option", sorted(OTHER_OPTIONS))
def test_an_option_of_another_tool_says_what_is_there_instead(option: str) -> None:
    for typed in ([option, "x"], [f"{option}=x"]):
        ended = run_here("submit", *typed)
        assert ended.code == 2
        assert f"hpcbench submit: no option {option}\n  hint: {OTHER_OPTIONS[option]}\n" in ended.err


@pytest.mark.parametrize("key", [hint.partition("--set ")[2] for hint in OTHER_OPTIONS.values() if "--set " in hint])
def test_the_setting_named_in_an_options_hint_is_taken(tmp_path: Path, key: str) -> None:
    name = key.removesuffix("=VALUE")
    value = {"requirements.partition": "gpu", "requirements.time": "1h", "requirements.gpu": "0"}.get(name, "1")
    load(tmp_path, write_command_suite(tmp_path).read_text(encoding="utf-8"), f"{name}={value}")


RUN_IT = "write its arguments under `args` of a suite, or run it with `cmd: command` and args.command: "
FILES = {
    "finetuning_type: lora\nstage: sft\ndataset: a\n": (
        "a training file of LLaMA-Factory",
        f"{RUN_IT}[llamafactory-cli, train, FILE]",
    ),
    "base_model: a\ndatasets: [{path: x}]\n": (
        "a training file of axolotl",
        f"{RUN_IT}[axolotl, train, FILE]",
    ),
    "task: a\ndataset_path: json\ndoc_to_text: x\n": (
        "a task of lm-eval",
        "name its folder in eval_args.include_path and its task in eval_dataset",
    ),
    "zero_optimization: {stage: 2}\n": (
        "a configuration of DeepSpeed",
        "hpcbench spreads a training with requirements.ddp",
    ),
    "model_type: llama\narchitectures: [L]\n": (
        "a model's configuration",
        "name the folder of the model in args.model_id_or_path",
    ),
    "account: a\npartition: b\n": ("a cluster profile", "hpcbench submit SUITE --cluster FILE"),
    "mine: {file_name: a.json}\n": (
        "a registry of datasets",
        "name it in args.dataset_info and its entries in args.dataset",
    ),
}


@pytest.mark.parametrize("text", FILES)
def test_a_file_of_another_kind_is_told_from_a_suite(tmp_path: Path, text: str) -> None:
    kind, hint = FILES[text]
    expected = f"demo.yaml:1: {kind}, not a suite\n  expected: a mapping with the key `experiment`\n  hint: {hint}"
    assert refusal(tmp_path, text) == expected


def test_a_suite_that_only_lacks_its_experiments_is_still_a_suite(tmp_path: Path) -> None:
    assert "`experiment` is missing" in refusal(tmp_path, "cmd: sft\nargs: {dataset: a}\n")


def test_a_program_of_another_tool_runs_as_a_command(tmp_path: Path) -> None:
    words = ["llamafactory-cli", "train", "llama_train.yaml"]
    suite = load(tmp_path, write_command_suite(tmp_path, args={"command": words}).read_text(encoding="utf-8"))
    command = suite.experiments[0].command
    assert command is not None
    assert command.command == tuple(words)
