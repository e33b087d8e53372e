"""`cmd: infer`: what a checkpoint says is filled in, what cannot be answered is refused with file, line and a way on."""

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
from tests.support.suite_writer import load_one, refusal

VALUES = {"val_dataset": "rows.jsonl", "model_id_or_path": "./base"}


@pytest.fixture(autouse=True)
def place(tmp_path: Path) -> None:
    write_model(tmp_path / "base")
    (tmp_path / "rows.jsonl").write_text('{"query": "a"}\n{"query": "b", "response": "c"}\n', encoding="utf-8")


def suite(values: dict[str, Any], **more: Any) -> str:
    experiment = {"name": "a", "args": {**VALUES, **values}}
    return json.dumps({"cmd": "infer", "device": "cpu", **more, "experiment": [experiment]})


def write_adapter(folder: Path, base: str | None, *, rank: int = 8) -> Path:
    folder.mkdir(parents=True)
    (folder / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": base, "r": rank}))
    return folder


def problem(tmp_path: Path, values: dict[str, Any], **more: Any) -> str:
    return refusal(tmp_path, suite(values, **more)).replace(f"{tmp_path}/", "")


def test_arguments_of_swifts_infer_script_are_taken(tmp_path: Path) -> None:
    values = {
        "model_type": "llama",
        "sft_type": "lora",
        "eval_human": False,
        "show_dataset_sample": 10,
        "system": "you are a helpful assistant!",
        "max_new_tokens": 64,
        "temperature": 0.9,
        "use_streamer": True,
        "save_generation_config": True,
        "use_flash_attn": False,
    }

    experiment = load_one(tmp_path, suite(values))

    assert experiment.infer is not None
    assert (experiment.infer.show_dataset_sample, experiment.infer.stream) == (10, True)


def test_the_base_of_an_adapter_is_filled_in(tmp_path: Path) -> None:
    write_adapter(tmp_path / "lora", str(tmp_path / "base"))

    experiment = load_one(tmp_path, suite({"ckpt_dir": "lora", "model_id_or_path": None}))

    assert experiment.args is not None
    assert experiment.infer is not None
    assert experiment.args.model_id_or_path == str(tmp_path / "base")
    assert experiment.infer.ckpt_dir == str(tmp_path / "lora")


def test_a_whole_checkpoint_is_its_own_model(tmp_path: Path) -> None:
    experiment = load_one(tmp_path, suite({"adapters": ["base"], "model_id_or_path": None}))

    assert experiment.args is not None
    assert experiment.args.model_id_or_path == str(tmp_path / "base")


def write_training(tmp_path: Path, **values: Any) -> Path:
    """Write an adapter where a training of hpcbench has it, with the training's request."""
    job = JobPaths(tmp_path / "logs" / "suite" / "lora" / "train")
    args = SftArgs(model_id_or_path=str(tmp_path / "base"), dataset=("x.jsonl",), **values)
    request = JobRequest(
        suite="suite", experiment="lora", job="train", cmd="sft", fingerprint="f", resources=Resources(), args=args
    )
    write_json(job.request, request.model_dump(mode="json"))
    return write_adapter(job.checkpoints / "best", str(tmp_path / "base"))


def test_what_the_training_of_a_checkpoint_says_is_filled_in_and_what_is_typed_wins(tmp_path: Path) -> None:
    folder = write_training(tmp_path, system="be brief", dtype="fp32", val_dataset=(str(tmp_path / "rows.jsonl"),))
    values: dict[str, Any] = {"ckpt_dir": str(folder), "model_id_or_path": None}

    taken = load_one(tmp_path, suite({**values, "val_dataset": None, "load_dataset_config": True})).args
    typed = load_one(tmp_path, suite({**values, "system": "be kind"})).args
    left = load_one(tmp_path, suite({**values, "load_args": False})).args

    assert taken is not None
    assert typed is not None
    assert left is not None
    assert (taken.system, taken.dtype, taken.val_dataset) == ("be brief", "fp32", (str(tmp_path / "rows.jsonl"),))
    assert (typed.system, typed.dtype) == ("be kind", "fp32")
    assert (left.system, left.model_id_or_path) == (None, str(tmp_path / "base"))


def test_an_adapter_of_another_base_is_refused_with_both_names(tmp_path: Path) -> None:
    write_adapter(tmp_path / "lora", "Qwen/Qwen2.5-7B")

    assert problem(tmp_path, {"ckpt_dir": "lora"}) == (
        "demo.yaml:1: experiment[a].args.model_id_or_path: lora is an adapter of Qwen/Qwen2.5-7B, and the model is base\n"
        "  expected: model_id_or_path: Qwen/Qwen2.5-7B, or none, which takes it too\n"
        "  hint: where they are the same model, write base into base_model_name_or_path of its adapter_config.json"
    )


@pytest.mark.parametrize(
    "name", ["base", "owner/Base", "/elsewhere/base", "/cache/models--owner--base/snapshots/0123456789abcdef"]
)
def test_a_base_at_another_place_is_the_same_base(tmp_path: Path, name: str) -> None:
    write_adapter(tmp_path / "lora", name)

    assert load_one(tmp_path, suite({"ckpt_dir": "lora"})).infer is not None


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"eval_human": True}, "`eval_human: true`: nobody types prompts into a job that waits in a queue"),
        ({"val_dataset": None}, "no prompts to answer"),
        (
            {"val_dataset": None, "dataset": "rows.jsonl", "dataset_test_ratio": 0},
            "`dataset_test_ratio: 0` leaves no rows of `dataset` to answer",
        ),
        ({"show_dataset_sample": 0}, "`show_dataset_sample: 0` leaves nothing to answer"),
        ({"merge_lora_and_save": True}, "`merge_lora_and_save` with no adapter to merge"),
        ({"ckpt_dir": "base", "merge_lora": True}, "`merge_lora`: base is a whole model"),
        ({"ckpt_dir": "."}, "is not a checkpoint"),
        ({"ckpt_dir": "nowhere"}, "no such folder: 'nowhere'"),
        ({"ckpt_dir": "nameless", "model_id_or_path": None}, "nameless is an adapter that does not say of which base"),
        ({"ckpt_dir": "gone", "model_id_or_path": None}, "gone is an adapter of /nowhere/base, which is not here"),
        ({"load_dataset_config": True}, "`load_dataset_config` takes the data of the training in `ckpt_dir`"),
        ({"checkpoint": "last"}, "`checkpoint` chooses among those of a training, and `ckpt_from` names none"),
        ({"ckpt_dir": "base", "ckpt_from": "b"}, "`ckpt_dir` and `ckpt_from` both say which checkpoint answers"),
        ({"learning_rate": 1e-3}, "`learning_rate` has no effect"),
        ({"max_num_seqs": 8}, "`max_num_seqs` has no effect"),
        ({"infer_backend": "vllm", "quantization_bit": 4}, "`infer_backend: vllm`: vLLM loads weights as they are"),
        (
            {"infer_backend": "vllm", "ckpt_dir": "wide"},
            "the adapter has rank 64, and `vllm_max_lora_rank` is 16\n  expected: vllm_max_lora_rank: 64",
        ),
    ],
)
def test_what_cannot_be_answered_is_refused(tmp_path: Path, values: dict[str, Any], message: str) -> None:
    write_adapter(tmp_path / "nameless", None)
    write_adapter(tmp_path / "gone", "/nowhere/base")
    write_adapter(tmp_path / "wide", str(tmp_path / "base"), rank=64)

    assert message in problem(tmp_path, values)


def test_ranks_and_evals_are_refused(tmp_path: Path) -> None:
    text = problem(tmp_path, {}, requirements={"gpu": 0, "ddp": 2}, eval_dataset=["arc"])

    assert "ddp 2: answers are generated in one process, with its model on all of its GPUs" in text
    assert "`cmd: infer` leaves no model for `eval_dataset` to evaluate" in text


def test_gpus_of_vllm_are_as_many_as_it_splits_layers_over(tmp_path: Path) -> None:
    values = {"infer_backend": "vllm", "tensor_parallel_size": 2}
    text = problem(tmp_path, values, device="cuda", requirements={"gpu": 1})

    assert "gpu 1, and `tensor_parallel_size` is 2" in text


def test_a_row_that_asks_nothing_is_refused(tmp_path: Path) -> None:
    (tmp_path / "texts.jsonl").write_text('{"text": "a"}\n', encoding="utf-8")

    assert problem(tmp_path, {"val_dataset": "texts.jsonl"}) == (
        "demo.yaml:1: experiment[a].args.val_dataset: texts.jsonl: line 1: text: plain text, which asks nothing\n"
        "  expected: messages | conversations | query | instruction | question | prompt"
    )


def test_columns_of_the_training_are_read_for_its_questions_too(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text('{"frage": "a", "antwort": "b"}\n', encoding="utf-8")
    columns = {"frage": "query", "antwort": "response"}
    args = load_one(tmp_path, suite({"columns": columns})).args
    assert args is not None
    assert dict(args.columns) == columns
