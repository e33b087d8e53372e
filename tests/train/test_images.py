"""Image models: rows with images to tokens, labels and pixels; trainings of tiny ones, resumed to the last bit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from hpcbench.data.images import ImageSource
from hpcbench.errors import WorkerError
from hpcbench.schemas.arguments import SftArgs
from hpcbench.worker.data.batches import pad_inputs
from hpcbench.worker.data.encoded import IGNORED_LABEL, Encoded
from hpcbench.worker.data.images import shrink
from hpcbench.worker.data.processor import load_processor
from hpcbench.worker.data.samples import load_splits
from hpcbench.worker.data.templates import Template
from hpcbench.worker.measure.loss import mean_cross_entropy
from hpcbench.worker.models import loading
from hpcbench.worker.train import trainer as trainer_module
from tests.support.tiny_image_models import make_image_model, write_image_rows
from tests.support.tiny_models import make_job, prepare, read_history, read_metrics, read_weights, train_here

pytestmark = pytest.mark.train

KINDS = ("qwen2_vl", "smolvlm")
FULL: dict[str, Any] = {
    "sft_type": "full",
    "lora_target_modules": ("DEFAULT",),
    "lora_dropout_p": 0,
    "freeze_vit": False,
    "freeze_aligner": False,
}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("models")
    return {kind: make_image_model(folder / kind, kind) for kind in (*KINDS, "qwen2_5_vl", "idefics3")}


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_image_rows(tmp_path_factory.mktemp("rows"), count=24)


def make_template(model: Path, **values: Any) -> Template:
    args = SftArgs(model_id_or_path=str(model), **values)
    return Template.from_args(args, loading.load_tokenizer(args))


def chat(*sources: ImageSource, answer: str = "red") -> list[dict[str, Any]]:
    images = [{"type": "image", "image": source} for source in sources]
    return [
        {"role": "user", "content": [*images, {"type": "text", "text": "which?"}]},
        {"role": "assistant", "content": answer},
    ]


def picture(folder: Path, width: int, height: int) -> ImageSource:
    path = folder / f"{width}x{height}.png"
    Image.effect_noise((width, height), 50).convert("RGB").save(path)
    return ImageSource(path=path)


def encode(template: Template, *sources: ImageSource, answer: str = "red") -> Encoded:
    return template.encode(chat(*sources, answer=answer))


def test_qwen_reads_as_many_tokens_as_an_image_has_merged_patches_and_learns_the_answer(
    tmp_path: Path, models: dict[str, Path]
) -> None:
    template = make_template(models["qwen2_vl"])
    tokenizer = template.tokenizer
    # 16 x 24 pixels are 4 x 6 patches, of which four become one token.
    row = encode(template, picture(tmp_path, 24, 16))
    question = ["<|im_start|>", *"user", "Ċ", "<|vision_start|>", *["<|image_pad|>"] * 6, "<|vision_end|>", *"which?"]
    prompt = [*question, "<|im_end|>", "Ċ", "<|im_start|>", *"assistant", "Ċ"]
    assert tokenizer.convert_ids_to_tokens(list(row.input_ids)) == [*prompt, *"red", "<|im_end|>"]
    assert list(row.labels) == [IGNORED_LABEL] * len(prompt) + list(row.input_ids)[len(prompt) :]
    assert template.prefix_ids(chat(*row.images)[:-1]) == list(row.input_ids)[: len(prompt)]


def test_smolvlm_reads_tiles_with_their_places_and_a_small_image_as_one(
    tmp_path: Path, models: dict[str, Path]
) -> None:
    template = make_template(models["smolvlm"])
    row = encode(template, picture(tmp_path, 32, 16))
    tokens = template.tokenizer.convert_ids_to_tokens(list(row.input_ids))
    around, image = "<fake_token_around_image>", ["<image>"] * 4
    tiles = [around, "<row_1_col_1>", *image, around, "<row_1_col_2>", *image, "Ċ"]
    prompt = ["<|im_start|>", *"User:", *tiles, "Ċ", around, "<global-img>", *image, around, *"which?"]
    prompt += ["<end_of_utterance>", "Ċ", *"Assistant:"]
    assert tokens == [*prompt, "Ġ", *"red", "<end_of_utterance>"]
    assert list(row.labels) == [IGNORED_LABEL] * len(prompt) + list(row.input_ids)[len(prompt) :]


@pytest.mark.parametrize("kind", [*KINDS, "qwen2_5_vl", "idefics3"])
def test_tokens_and_pixels_are_what_the_processor_itself_makes_of_a_chat(
    tmp_path: Path, models: dict[str, Path], kind: str
) -> None:
    template = make_template(models[kind])
    sources = [picture(tmp_path, 40, 24), picture(tmp_path, 16, 16)]
    row = encode(template, *sources)
    processor = load_processor(SftArgs(model_id_or_path=str(models[kind])), template.tokenizer)
    assert processor is not None
    messages = chat(*sources)[:-1]
    messages[0]["content"] = [part if part["type"] == "text" else {"type": "image"} for part in messages[0]["content"]]
    text = template.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    images = [Image.open(str(source.path)) for source in sources]
    expected = processor(text=[text], images=[images], return_tensors="pt")
    num_prompt = expected["input_ids"].shape[1]
    assert list(row.input_ids)[:num_prompt] == expected["input_ids"][0].tolist()
    batch = pad_inputs([row], 0, images=template.images)
    for name in processor.image_processor.model_input_names:
        assert torch.equal(batch[name], expected[name]), name
    if "mm_token_type_ids" in expected:
        assert torch.equal(batch["mm_token_type_ids"][:, :num_prompt], expected["mm_token_type_ids"])


@pytest.mark.parametrize("kind", KINDS)
def test_a_batch_of_rows_with_and_without_images_is_as_its_rows_one_by_one(
    tmp_path: Path, models: dict[str, Path], kind: str
) -> None:
    args = SftArgs(model_id_or_path=str(models[kind]), dtype="fp32")
    template, model = make_template(models[kind]), loading.load_model(args, "cpu")
    one, two = picture(tmp_path, 40, 24), picture(tmp_path, 16, 16)
    encoded = [encode(template, two, one), encode(template, answer="blue"), encode(template, one, answer="x")]
    losses = [mean_cross_entropy(model, [row], 1, "cpu", images=template.images) for row in encoded]
    total = sum(loss * count for loss, count in losses) / sum(count for _, count in losses)
    together, _ = mean_cross_entropy(model, encoded, 3, "cpu", images=template.images)
    assert together == pytest.approx(total, rel=1e-6)


def test_what_cannot_be_encoded_is_said(tmp_path: Path, models: dict[str, Path]) -> None:
    template, source = make_template(models["qwen2_vl"], max_length=32), picture(tmp_path, 24, 16)
    with pytest.raises(WorkerError, match="more than max_length 32, and an image cannot be cut"):
        encode(template, source)
    dropped = encode(make_template(models["qwen2_vl"], max_length=32, truncation_strategy="delete"), source)
    assert (dropped.input_ids, dropped.truncated) == ([], True)
    template = make_template(models["qwen2_vl"])
    with pytest.raises(WorkerError, match=r"1 images and 2 places for them \(<\|image_pad\|>\) in the prompt"):
        encode(template, source, answer="<|image_pad|>")
    with pytest.raises(WorkerError, match=r"0 images and 1 places for them"):
        encode(template, answer="<|image_pad|>")
    with pytest.raises(WorkerError, match=r"the text holds <\|image_pad\|>, which stands for an image"):
        template.encode_text("<|image_pad|>")
    source.path.write_bytes(source.path.read_bytes()[:200])  # type: ignore[union-attr]  # made with one above
    with pytest.raises(WorkerError, match=r"24x16\.png: a broken image"):
        encode(make_template(models["qwen2_vl"]), source)


def test_max_pixels_makes_large_images_smaller_in_their_proportions(tmp_path: Path, models: dict[str, Path]) -> None:
    assert shrink(Image.new("RGB", (400, 100)), 10_000).size == (200, 50)
    assert shrink(Image.new("RGB", (400, 100)), 40_000).size == (400, 100)
    source = picture(tmp_path, 64, 16)
    lengths = [
        len(encode(make_template(models["qwen2_vl"], max_pixels=limit), source).input_ids) for limit in (None, 256)
    ]
    assert lengths[0] - lengths[1] == 12


@pytest.mark.parametrize("kind", KINDS)
def test_adapters_and_full_training_keep_to_the_parts_that_are_not_frozen(models: dict[str, Path], kind: str) -> None:
    vision = {"qwen2_vl": "model.visual.", "smolvlm": "model.vision_model."}[kind]
    aligner = {"qwen2_vl": "model.visual.merger.", "smolvlm": "model.connector."}[kind]

    def adapted(**values: Any) -> set[str]:
        model, _ = prepare(models[kind], lora_target_modules="ALL", **values)
        names = {name for name, weight in model.named_parameters() if weight.requires_grad}
        return {"aligner" if aligner in name else "vit" if vision in name else "llm" for name in names}

    assert adapted() == {"llm"}
    assert adapted(freeze_llm=True, freeze_aligner=False) == {"aligner"}
    assert adapted(freeze_vit=False, freeze_aligner=False) == {"llm", "vit", "aligner"}
    model, _ = prepare(models[kind], sft_type="full", freeze_llm=True, freeze_vit=False)
    trained = {name for name, weight in model.named_parameters() if weight.requires_grad}
    assert trained
    assert all(name.startswith(vision) and not name.startswith(aligner) for name in trained)
    with pytest.raises(WorkerError, match="of q_proj all modules are in parts that are frozen: aligner, llm, vit"):
        prepare(models[kind], lora_target_modules="q_proj", freeze_llm=True)


def stop_in_step(monkeypatch: pytest.MonkeyPatch, step: int | None) -> None:
    def asked(attempt: Any) -> bool:
        return step is not None and sum("loss" in line for line in read_history(attempt)) >= step - 1

    monkeypatch.setattr(trainer_module, "stop_requested", asked)


@pytest.mark.parametrize("case", ["qwen2_vl full", "smolvlm full", "qwen2_vl lora"])
def test_a_training_on_images_learns_resumes_to_the_last_bit_and_counts_images(
    tmp_path: Path, models: dict[str, Path], rows: Path, monkeypatch: pytest.MonkeyPatch, case: str
) -> None:
    kind, sft_type = case.split()
    answers = {"predict_with_generate": True, "max_new_tokens": 3}
    values = {
        **(FULL if sft_type == "full" else answers),
        "learning_rate": 1e-2,
        "num_train_epochs": 3,
        "eval_steps": 15,
    }
    reference = make_job(tmp_path / "reference", models[kind], rows, **values)
    attempt = train_here(reference)
    losses = [line["loss"] for line in read_history(attempt) if "loss" in line]
    assert losses[-1] < (0.7 if sft_type == "full" else 0.99) * losses[0]
    metrics = read_metrics(attempt)
    tokens = metrics.tokens
    assert tokens is not None
    # 16 x 16 pixels are 4 x 4 patches of Qwen2-VL, four of them a token; and one tile of SmolVLM, resized to 32.
    of_each = {"qwen2_vl": 4, "smolvlm": 20}[kind]
    assert (tokens.num_images, tokens.num_image_tokens) == (20, 20 * of_each)
    assert metrics.unknown["flops_per_token"].startswith("an image model: ")
    job = make_job(tmp_path / "job", models[kind], rows, **values)
    stop_in_step(monkeypatch, 7)
    train_here(job)
    stop_in_step(monkeypatch, None)
    last = train_here(job, 2)
    assert [line["loss"] for line in read_history(last) if "loss" in line] == losses[7:]
    found, expected = read_weights(job.checkpoints / "last"), read_weights(reference.checkpoints / "last")
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    # The checkpoint is a model by itself: it can be loaded with its processor.
    if sft_type == "lora":
        assert metrics.rouge_l is not None
        return
    args = SftArgs(model_id_or_path=str(job.checkpoints / "last"))
    assert load_processor(args, loading.load_tokenizer(args)) is not None


def test_rows_of_a_training_have_their_images(models: dict[str, Path], rows: Path) -> None:
    splits = load_splits(SftArgs(model_id_or_path=str(models["smolvlm"]), dataset=(str(rows),), dataset_test_ratio=0))
    assert [sample.messages[0]["content"][0]["image"].path for sample in splits.train[:2]] == [
        rows.parent / "0.png",
        rows.parent / "1.png",
    ]


def test_learning_the_prompt_too_predicts_no_part_of_an_image(tmp_path: Path, models: dict[str, Path]) -> None:
    template = make_template(models[KINDS[0]], loss_on_prompt=True)
    row = encode(template, picture(tmp_path, 16, 16))
    assert len(row.images) == 1
    assert template.images is not None
    left_out = [token == template.images.token_id for token in row.input_ids]
    assert any(left_out)
    assert [label == IGNORED_LABEL for label in row.labels] == left_out
