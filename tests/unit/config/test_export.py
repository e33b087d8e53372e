"""`cmd: export`: what its checkpoint says is filled in, what cannot be exported is refused with file and line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from hpcbench.schemas.arguments import SftArgs
from hpcbench.schemas.request import JobRequest, Resources
from hpcbench.storage.json_files import write_json
from hpcbench.storage.paths import JobPaths
from tests.support.model_folders import write_model
from tests.support.suite_writer import HEAD, load_one, refusal


@pytest.fixture(autouse=True)
def place(tmp_path: Path) -> None:
    write_model(tmp_path / "base")


def write_adapter(folder: Path, base: str | None, peft_type: str = "LORA") -> Path:
    folder.mkdir(parents=True)
    (folder / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": base, "peft_type": peft_type}))
    return folder


def suite(**args: Any) -> str:
    return json.dumps({"cmd": "export", "device": "cpu", "experiment": [{"name": "a", "args": args}]})


def problem(tmp_path: Path, **args: Any) -> str:
    return refusal(tmp_path, suite(**args)).replace(f"{tmp_path}/", "")


def test_the_base_of_an_adapter_is_filled_in(tmp_path: Path) -> None:
    write_adapter(tmp_path / "lora", str(tmp_path / "base"))
    args = load_one(tmp_path, suite(ckpt_dir="lora")).args
    assert args is not None
    assert args.model_id_or_path == str(tmp_path / "base")


def test_a_whole_checkpoint_is_its_own_model(tmp_path: Path) -> None:
    args = load_one(tmp_path, suite(adapters=["base"], quant_bits=4, quant_method="bnb")).args
    assert args is not None
    assert args.model_id_or_path == str(tmp_path / "base")


def test_the_training_says_dtype_and_template_but_not_how_its_base_was_held(tmp_path: Path) -> None:
    job = JobPaths(tmp_path / "logs" / "suite" / "lora" / "train")
    args = SftArgs(model_id_or_path=str(tmp_path / "base"), dataset=("x",), dtype="fp32", quantization_bit=4)
    request = JobRequest(
        suite="suite", experiment="lora", job="train", cmd="sft", fingerprint="f", resources=Resources(), args=args
    )
    write_json(job.request, request.model_dump(mode="json"))
    folder = write_adapter(job.checkpoints / "best", str(tmp_path / "base"))
    found = load_one(tmp_path, suite(ckpt_dir=str(folder))).args
    assert found is not None
    assert (found.model_id_or_path, found.dtype, found.quantization_bit) == (str(tmp_path / "base"), "fp32", 0)


def test_an_adapter_of_another_base_is_refused_with_both_names(tmp_path: Path) -> None:
    write_adapter(tmp_path / "lora", "Qwen/Qwen2.5-7B")
    assert problem(tmp_path, ckpt_dir="lora", model_id_or_path="./base").startswith(
        "demo.yaml:1: experiment[a].args.model_id_or_path: lora is an adapter of Qwen/Qwen2.5-7B, and the model is base"
    )


def test_a_folder_that_is_no_checkpoint_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert "args.ckpt_dir: empty is not a checkpoint\n  expected: a folder with" in problem(tmp_path, ckpt_dir="empty")


def test_an_adapter_that_peft_cannot_merge_is_refused(tmp_path: Path) -> None:
    write_adapter(tmp_path / "prompt", str(tmp_path / "base"), "PROMPT_TUNING")
    assert problem(tmp_path, ckpt_dir="prompt") == (
        "demo.yaml:1: experiment[a].args.ckpt_dir: prompt is an adapter of prompt_tuning, which cannot be merged\n"
        "  expected: an adapter of a method that peft merges, such as lora\n"
        "  hint: evaluate the adapter on its base, without an export"
    )


def test_an_adapter_of_hpcbenchs_own_form_is_refused(tmp_path: Path) -> None:
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "tuner.json").write_text("{}")
    text = problem(tmp_path, ckpt_dir="own", model_id_or_path="./base")
    assert "own is an adapter of a method that is not peft's, which cannot be merged" in text


@pytest.mark.parametrize(
    ("training", "export", "message"),
    [
        (
            "sft_type: prompt_tuning, prompt_tuning_num_virtual_tokens: 4",
            "",
            "what sft_type prompt_tuning of 'a' trains cannot be merged",
        ),
        ("sft_type: adapter", "", "what sft_type adapter of 'a' trains cannot be merged"),
        ("sft_type: full", "", "'a' makes a whole model, which holds no adapter to merge"),
        ("sft_type: full", ", merge_lora: true, quant_bits: 4", "'a' makes a whole model, which holds no adapter"),
    ],
)
def test_a_training_that_leaves_nothing_to_merge_is_refused(
    tmp_path: Path, training: str, export: str, message: str
) -> None:
    text = f"experiment: [{{name: a, args: {{{training}}}}}, {{name: b, cmd: export, args: {{ckpt_from: a{export}}}}}]"
    assert message in refusal(tmp_path, HEAD + text)


def test_two_experiments_do_not_export_into_one_folder(tmp_path: Path) -> None:
    write_adapter(tmp_path / "lora", str(tmp_path / "base"))
    args = {"ckpt_dir": "lora", "output_dir": "merged"}
    text = json.dumps({"cmd": "export", "args": args, "experiment": [{"name": "a"}, {"name": "b"}]})
    assert refusal(tmp_path, text) == (
        "demo.yaml:1: experiment[b]: 'b' would export into merged, where 'a' exports into\n"
        "  hint: give each its own output_dir, or none: the model is then in the job's folder"
    )


@pytest.mark.parametrize("given", [{"dataset": "rows.jsonl#4"}, {"dataset": "rows.jsonl", "train_dataset_sample": 4}])
def test_rows_to_calibrate_on_are_counted_as_they_are_drawn(tmp_path: Path, given: dict[str, Any]) -> None:
    (tmp_path / "rows.jsonl").write_text('{"query": "a", "response": "b"}\n' * 40, encoding="utf-8")
    export = {
        "model_id_or_path": "./base",
        "quant_bits": 4,
        "quant_method": "gptq",
        "quant_n_samples": 8,
        "group_size": -1,
    }
    assert "quant_n_samples" in problem(tmp_path, dataset_test_ratio=0, **export, **given)
    assert load_one(tmp_path, suite(dataset="rows.jsonl", dataset_test_ratio=0, **export)).export is not None
