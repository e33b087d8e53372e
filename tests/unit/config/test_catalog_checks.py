"""What the catalogs know of models and datasets is refused by plan, each with a way on that is accepted."""

from __future__ import annotations

from pathlib import Path

import pytest

from hpcbench.catalog.datasets import DATASETS
from hpcbench.catalog.models import MODELS
from hpcbench.config.loading import load_suites
from tests.support.suite_writer import load_one, refusal


def suite(args: str) -> str:
    return f"cmd: sft\nargs: {{{args}}}\nexperiment: [{{name: a}}]\n"


def test_a_model_whose_code_is_too_old_is_refused_with_what_breaks(tmp_path: Path) -> None:
    text = refusal(tmp_path, suite("model_type: qwen-7b-chat, dataset: ms-agent"))
    assert (
        "args.model_type: qwen-7b-chat cannot be loaded: its code (modeling_qwen.py) calls get_head_mask, which "
        "transformers 5 no longer has\n"
        "  expected: for example qwen1half-7b-chat, qwen2-7b-instruct, qwen2.5-0.5b-instruct, qwen2.5-1.5b\n"
        "  hint: a model whose code is in transformers; or adapt its folder's code and give model_id_or_path: that folder"
    ) in text
    # The same by its id on either hub.
    for name in ("Qwen/Qwen-7B-Chat", "qwen/Qwen-7B-Chat"):
        assert "get_head_mask" in refusal(tmp_path, suite(f"model: {name}, dataset: ms-agent"))


def test_code_of_a_model_runs_only_where_it_is_trusted(tmp_path: Path) -> None:
    text = refusal(tmp_path, suite("model_type: internlm-7b, dataset: ms-agent"))
    assert "internlm-7b: its Python code comes with its weights, and runs only where you trust it" in text
    assert "hint: args: {trust_remote_code: true}, if you trust internlm/internlm-7b" in text
    (tmp_path / "trusted.yaml").write_text(suite("model_type: internlm-7b, dataset: ms-agent, trust_remote_code: true"))
    (trusted,) = load_suites([tmp_path / "trusted.yaml"])
    remark = "not checked: internlm-7b: its own Python code, from its folder, was never run here with transformers 5"
    assert remark in trusted.remarks


@pytest.mark.parametrize("name", MODELS.names())
def test_each_model_is_accepted_or_refused_with_the_catalogs_reason(tmp_path: Path, name: str) -> None:
    entry = MODELS.lookup(name)
    assert entry is not None
    text = suite(f"model_type: {name}, dataset: ms-agent, trust_remote_code: true")
    if entry.cannot_run is not None and not entry.multimodal:
        assert entry.cannot_run in refusal(tmp_path, text)
    elif entry.multimodal:
        assert "takes images or sound" in refusal(tmp_path, text)
    else:
        load_one(tmp_path, text)


@pytest.mark.parametrize("name", DATASETS.names())
def test_each_dataset_is_accepted_or_refused_with_the_catalogs_reason(tmp_path: Path, name: str) -> None:
    entry = DATASETS.lookup(name)
    assert entry is not None
    text = suite(f"model_type: qwen2.5-1.5b, dataset: {name}")
    if entry.multimodal:
        assert f"args.dataset: dataset '{name}' holds images or sound" in refusal(tmp_path, text)
    else:
        load_one(tmp_path, text)


def test_a_prefix_of_the_hub_that_has_it_is_taken_and_the_hint_for_another_is_accepted(tmp_path: Path) -> None:
    load_one(tmp_path, suite("model_type: qwen2.5-1.5b, dataset: 'MS::iic/ms_agent#9'"))
    text = refusal(tmp_path, suite("model_type: qwen2.5-1.5b, dataset: 'HF::iic/ms_agent'"))
    assert "hint: write iic/ms_agent without a prefix, which reads it from ModelScope" in text
    load_one(tmp_path, suite("model_type: qwen2.5-1.5b, dataset: iic/ms_agent"))


def test_an_adapter_is_no_model_and_the_hint_says_what_to_do_with_it(tmp_path: Path) -> None:
    folder = tmp_path / "adapter"
    folder.mkdir()
    (folder / "adapter_config.json").write_text("{}")
    text = refusal(tmp_path, suite("model: ./adapter, dataset: ms-agent"))
    assert "args.model: './adapter' holds an adapter, which is nothing without its base model" in text
    assert "hint: merge it into its base (peft: merge_and_unload, then save_pretrained), and name that folder" in text


def test_an_adapter_of_hpcbench_is_evaluated_where_it_was_trained(tmp_path: Path) -> None:
    folder = tmp_path / "output" / "tiny" / "lora" / "train" / "checkpoints" / "best"
    folder.mkdir(parents=True)
    (folder / "adapter_config.json").write_text("{}")
    (folder.parents[1] / "job.json").write_text("{}")
    text = refusal(tmp_path, suite("model: ./output/tiny/lora/train/checkpoints/best, dataset: ms-agent"))
    # The helper leaves out the folder of the test.
    place = folder.relative_to(tmp_path)
    assert f"hint: hpcbench eval --ckpt_dir {place} --eval_dataset TASK evaluates it on its base" in text


def test_a_model_of_images_is_refused_by_its_hub_id_too(tmp_path: Path) -> None:
    found = [MODELS.lookup(name) for name in MODELS.names()]
    ids = [entry.huggingface for entry in found if entry is not None and entry.multimodal and entry.huggingface]
    assert ids
    for name in ids:
        assert f"{name} takes images or sound" in refusal(tmp_path, suite(f"model_id_or_path: {name}"))
