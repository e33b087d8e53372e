"""Makes tiny models that read images: random weights, byte tokens, processors of patches of 4 pixels; and their rows."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

QWEN_TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' }}"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}"
    "{% for part in message['content'] %}{% if part['type'] == 'image' %}"
    "{{ '<|vision_start|><|image_pad|><|vision_end|>' }}{% elif 'text' in part %}{{ part['text'] }}{% endif %}"
    "{% endfor %}{% endif %}{{ '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
"""In the form of Qwen2-VL's."""
SMOLVLM_TEMPLATE = (
    "<|im_start|>{% for message in messages %}{{ message['role'] | capitalize }}"
    "{% if message['content'][0]['type'] == 'image' %}{{ ':' }}{% else %}{{ ': ' }}{% endif %}"
    "{% for part in message['content'] %}{% if part['type'] == 'text' %}{{ part['text'] }}"
    "{% elif part['type'] == 'image' %}{{ '<image>' }}{% endif %}{% endfor %}<end_of_utterance>\n{% endfor %}"
    "{% if add_generation_prompt %}{{ 'Assistant:' }}{% endif %}"
)
"""In the form of SmolVLM's, which reads contents as lists of parts only."""
_TEXT: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "bos_token_id": None,
}
COLORS = {"red": (250, 20, 20), "green": (20, 250, 20), "blue": (20, 20, 250)}


def make_image_model(folder: Path, kind: str = "qwen2_vl") -> Path:
    """Write a random model of a type of `IMAGE_MODELS`, with its tokenizer and its processor's files."""
    make = _make_qwen if kind.startswith("qwen2") else _make_idefics
    make(folder, kind)
    return folder


def write_image_rows(folder: Path, *, count: int, size: tuple[int, int] = (16, 16)) -> Path:
    """Write pictures of one color each, and rows that ask for it; return the file of the rows."""
    from PIL import Image

    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for index in range(count):
        name, color = list(COLORS.items())[index % len(COLORS)]
        Image.new("RGB", size, color).save(folder / f"{index}.png")
        messages = [{"role": "user", "content": "<image>which color?"}, {"role": "assistant", "content": name}]
        rows.append({"messages": messages, "images": [f"{index}.png"]})
    path = folder / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def _make_tokenizer(special: tuple[str, ...], *, eos: str, chat_template: str) -> Any:
    from tokenizers import AddedToken

    from tests.support.tiny_models import make_tokenizer

    tokenizer = make_tokenizer()
    tokenizer.add_special_tokens(
        {"additional_special_tokens": [AddedToken(token, special=True, normalized=False) for token in special]}
    )
    tokenizer.eos_token = eos
    tokenizer.chat_template = chat_template
    return tokenizer


def _make_qwen(folder: Path, kind: str) -> None:
    import torch
    import transformers

    name = {"qwen2_vl": "Qwen2VL", "qwen2_5_vl": "Qwen2_5_VL"}[kind]
    special = ("<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>")
    tokenizer = _make_tokenizer(special, eos="<|im_end|>", chat_template=QWEN_TEMPLATE)
    start, end, image, video = tokenizer.convert_tokens_to_ids(list(special))
    vision: dict[str, Any] = {
        "depth": 2,
        "num_heads": 2,
        "patch_size": 4,
        "spatial_merge_size": 2,
        "temporal_patch_size": 2,
    }
    if kind == "qwen2_vl":
        vision |= {"embed_dim": 32, "hidden_size": 32, "mlp_ratio": 2}
    else:
        vision |= {"hidden_size": 32, "out_hidden_size": 32, "intermediate_size": 48, "window_size": 16}
        vision |= {"fullatt_block_indexes": [1]}
    config = getattr(transformers, f"{name}Config")(
        text_config={
            **_TEXT,
            "vocab_size": len(tokenizer),
            "eos_token_id": tokenizer.eos_token_id,
            "pad_token_id": tokenizer.pad_token_id,
            "rope_parameters": {"rope_type": "default", "mrope_section": [1, 1, 2], "rope_theta": 10000.0},
            "tie_word_embeddings": True,
        },
        vision_config=vision,
        vision_start_token_id=start,
        vision_end_token_id=end,
        image_token_id=image,
        video_token_id=video,
        tie_word_embeddings=True,
    )
    torch.manual_seed(7)
    getattr(transformers, f"{name}ForConditionalGeneration")(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    transformers.Qwen2VLImageProcessorPil(
        patch_size=4, merge_size=2, temporal_patch_size=2, size={"shortest_edge": 64, "longest_edge": 1024}
    ).save_pretrained(folder)


def _make_idefics(folder: Path, kind: str) -> None:
    import torch
    import transformers

    name = {"idefics3": "Idefics3", "smolvlm": "SmolVLM"}[kind]
    tiles = tuple(f"<row_{row}_col_{column}>" for row in (1, 2) for column in (1, 2))
    special = ("<end_of_utterance>", "<fake_token_around_image>", "<image>", "<global-img>", *tiles)
    tokenizer = _make_tokenizer(special, eos="<end_of_utterance>", chat_template=SMOLVLM_TEMPLATE)
    config = getattr(transformers, f"{name}Config")(
        text_config={
            **_TEXT,
            "model_type": "llama",
            "vocab_size": len(tokenizer),
            "eos_token_id": tokenizer.eos_token_id,
            "pad_token_id": tokenizer.pad_token_id,
        },
        vision_config={
            "hidden_size": 16,
            "intermediate_size": 24,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "image_size": 16,
            "patch_size": 4,
        },
        scale_factor=2,
        image_token_id=tokenizer.convert_tokens_to_ids("<image>"),
        pad_token_id=tokenizer.pad_token_id,
    )
    torch.manual_seed(7)
    getattr(transformers, f"{name}ForConditionalGeneration")(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    getattr(transformers, f"{name}ImageProcessorPil")(
        size={"longest_edge": 32}, max_image_size={"longest_edge": 16}
    ).save_pretrained(folder)
    processor = {"processor_class": f"{name}Processor", "image_seq_len": 4}
    (folder / "processor_config.json").write_text(json.dumps(processor), encoding="utf-8")
