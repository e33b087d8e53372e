"""What plan says of suites with images: by the model's files, the rows and the pictures themselves, without torch."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from hpcbench.config.loading import load_suites
from hpcbench.errors import ConfigError
from tests.support.model_folders import llama_tensors, write_model
from tests.support.tiny_image_models import QWEN_TEMPLATE, SMOLVLM_TEMPLATE

PIL_Image = pytest.importorskip("PIL.Image")
QWEN = {
    "architectures": ["Qwen2VLForConditionalGeneration"],
    "model_type": "qwen2_vl",
    "vocab_size": 8,
    "hidden_size": 4,
    "num_hidden_layers": 2,
    "vision_config": {"depth": 1},
}
TOKENIZER = {"eos_token": "<end>", "pad_token": "<pad>"}
GOOD = {"query": "<image>a", "response": "b", "images": ["x.png"]}


def write_image_model(
    folder: Path, *, template: str | None = QWEN_TEMPLATE, more: dict[str, Any] | None = None
) -> None:
    tensors = {**llama_tensors(), "visual.blocks.0.attn.qkv.weight": (12, 4)}
    chat = {} if template is None else {"chat_template": template}
    write_model(folder, QWEN, tensors=tensors, tokenizer={**TOKENIZER, **chat}, more=more)
    (folder / "preprocessor_config.json").write_text("{}")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_image_model(tmp_path / "model")
    write_model(tmp_path / "text", tokenizer={**TOKENIZER, "chat_template": "{{ messages[0].content }}"})
    PIL_Image.new("RGB", (4, 4)).save(tmp_path / "x.png")
    (tmp_path / "broken.png").write_text("no picture")
    return tmp_path


def plan(folder: Path, *rows: dict[str, Any], **args: Any) -> tuple[str, ...]:
    """Return the remarks of a suite of one experiment on these rows."""
    (folder / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows or (GOOD,)))
    given = {"model_id_or_path": "./model", "dataset": "./train.jsonl", "max_length": 16, **args}
    suite = folder / "suite.yaml"
    suite.write_text(json.dumps({"cmd": "sft", "device": "cpu", "experiment": [{"name": "one", "args": given}]}))
    [found] = load_suites([suite])
    return found.remarks


def refusal(folder: Path, *rows: dict[str, Any], **args: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        plan(folder, *rows, **args)
    return str(caught.value).replace(f"{folder}/", "")


def test_rows_with_images_are_planned_on_an_image_model(folder: Path) -> None:
    assert not [remark for remark in plan(folder) if "image" in remark]
    plan(folder, sft_type="full", freeze_vit=False, rescale_image=-1)
    plan(folder, rescale_image=1_000_000, freeze_llm=True, freeze_aligner="false")


def test_templates_that_take_contents_as_lists_of_parts_are_tried_with_these(folder: Path) -> None:
    write_image_model(folder / "model", template=SMOLVLM_TEMPLATE, more={"model_type": "smolvlm"})
    plan(folder)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (
            {**GOOD, "images": ["gone.png"]},
            (
                "suite.yaml:1: experiment[one].args.dataset: train.jsonl: line 2: no such image: gone.png\n"
                "  expected: an image file, its path relative to the data's folder\n"
                "  hint: check_dataset_strategy: discard leaves such rows out"
            ),
        ),
        ({**GOOD, "images": ["broken.png"]}, "train.jsonl: line 2: broken.png: not an image that Pillow can read"),
        ({**GOOD, "images": []}, "train.jsonl: line 2: response: message 1: <image> without an image left for it"),
        ({**GOOD, "videos": ["x.mp4"]}, "train.jsonl: line 2: videos: list of 1"),
        ({**GOOD, "query": "<image><audio>a"}, "train.jsonl: line 2: response: message 1: <audio>"),
        ({**GOOD, "query": "<image>where is <ref-object>"}, "line 2: response: message 1: <ref-object>, a mark of "),
    ],
)
def test_a_row_whose_images_cannot_be_trained_on_is_named(folder: Path, row: dict[str, Any], message: str) -> None:
    assert message in refusal(folder, GOOD, row)


def test_rows_with_missing_images_may_be_left_out(folder: Path) -> None:
    plan(folder, GOOD, {**GOOD, "images": ["gone.png"]}, check_dataset_strategy="discard")


def test_a_text_model_refuses_rows_with_images(folder: Path) -> None:
    text = refusal(folder, {"query": "a", "response": "b", "images": ["x.png"]}, model_id_or_path="./text")
    assert "train.jsonl: line 1: images: list of 1\n  expected: text, which is all that this model takes" in text


def test_infer_asks_no_images_and_exports_quantise_no_image_model(folder: Path) -> None:
    suite = folder / "suite.yaml"
    (folder / "train.jsonl").write_text(json.dumps(GOOD) + "\n")
    model = {"model_id_or_path": "./model"}
    for cmd, args, message in (
        (
            "infer",
            {**model, "val_dataset": "./train.jsonl"},
            "images: list of 1\n  expected: text; infer asks no images",
        ),
        (
            "export",
            {**model, "quant_bits": 4, "quant_method": "bnb"},
            "args.quant_bits: model reads images, and exports quantise text models\n  expected: a text model",
        ),
    ):
        suite.write_text(json.dumps({"cmd": cmd, "device": "cpu", "experiment": [{"name": "one", "args": args}]}))
        with pytest.raises(ConfigError) as caught:
            load_suites([suite])
        assert message in str(caught.value).replace(f"{folder}/", "")


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ({"packing": True}, "args.packing: samples with images cannot share a sequence, and model reads images\n"),
        ({"sft_type": "ia3"}, "args.sft_type: ia3 trains text models, and model reads images\n"),
        ({"template_type": "chatml"}, "args.template_type: model reads images, and its prompts are written by its "),
        (
            {"freeze_llm": True},
            "args.freeze_llm: freeze_llm, freeze_vit and freeze_aligner together leave nothing to train\n",
        ),
        ({"max_pixels": 0}, "args.max_pixels"),
        (
            {"rope_scaling": "linear"},
            "args.rope_scaling: rope_scaling stretches positions of one dimension, and model ",
        ),
    ],
)
def test_what_an_image_model_cannot_do_is_refused(folder: Path, args: dict[str, Any], message: str) -> None:
    assert message in refusal(folder, **args)


@pytest.mark.parametrize(
    ("name", "value"), [("max_pixels", 99), ("freeze_llm", True), ("freeze_vit", False), ("freeze_aligner", False)]
)
def test_an_argument_about_images_has_no_effect_on_a_text_model(folder: Path, name: str, value: object) -> None:
    text = refusal(folder, {"query": "a", "response": "b"}, model_id_or_path="./text", **{name: value})
    assert f"args.{name}: `{name}` has no effect: text reads no images\n  expected: an image model, of type " in text
    assert f"hint: remove {name}" in text


def test_a_model_without_its_processors_files_is_refused(folder: Path) -> None:
    (folder / "model" / "preprocessor_config.json").unlink()
    assert "args.model_id_or_path: model has no preprocessor_config.json, by which images become pixels" in refusal(
        folder
    )
    (folder / "model" / "processor_config.json").write_text('{"image_processor": {}}')
    plan(folder)


def test_a_model_without_a_chat_template_is_refused_and_one_of_the_processors_file_taken(folder: Path) -> None:
    write_image_model(folder / "model", template=None)
    assert "model has no chat template, which alone says where images stand in a prompt" in refusal(folder)
    (folder / "model" / "chat_template.json").write_text(json.dumps({"chat_template": QWEN_TEMPLATE}))
    plan(folder)


def test_a_model_of_another_type_is_refused_with_those_that_can_be_taken(folder: Path) -> None:
    write_image_model(folder / "model", more={"model_type": "mllama"})
    assert (
        "model takes images or sound (`vision_config` in its config.json), and is of another type\n"
        "  expected: a text model, or an image model of type qwen2_vl, qwen2_5_vl, idefics3, smolvlm"
    ) in refusal(folder, {"query": "a", "response": "b"})
