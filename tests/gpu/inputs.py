"""The model and the rows that `make gpu-check` trains on: random weights, so that nothing has to be carried."""

from __future__ import annotations

import json
import random
import sys
from pathlib import Path
from typing import Any, Final

from tests.support.tiny_models import make_tokenizer

SIZES: Final[dict[str, dict[str, Any]]] = {
    "cuda": {
        "vocab_size": 65536,
        "hidden_size": 1024,
        "intermediate_size": 2816,
        "num_hidden_layers": 8,
        "num_attention_heads": 16,
        "num_key_value_heads": 8,
    },
    "cpu": {
        "vocab_size": 512,
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
    },
}
"""Device -> sizes of a Qwen2: 150 million parameters whose logits are larger than its activations, or a tiny one."""
NUM_ROWS: Final = 160
LONGEST: Final = {"cuda": 900, "cpu": 60}
"""Letters of the longest answer."""


def write_inputs(folder: Path, device: str) -> None:
    """Write `model`, `rows.jsonl` and `pairs.jsonl` where they are not there yet."""
    if (folder / "pairs.jsonl").exists():
        return
    import torch
    from transformers import Qwen2Config, Qwen2ForCausalLM

    tokenizer = make_tokenizer()
    torch.manual_seed(7)
    config = Qwen2Config(
        **SIZES[device],
        max_position_embeddings=4096,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    Qwen2ForCausalLM(config).save_pretrained(folder / "model")
    tokenizer.save_pretrained(folder / "model")
    chooser = random.Random(7)
    answers = [_text(chooser, LONGEST[device]) for _ in range(NUM_ROWS)]
    questions = [_text(chooser, 40) for _ in answers]
    rows = [{"query": question, "response": answer} for question, answer in zip(questions, answers, strict=True)]
    pairs = [{**row, "rejected_response": row["response"][::-1]} for row in rows]
    for name, lines in (("rows.jsonl", rows), ("pairs.jsonl", pairs)):  # the last one says that all are there
        (folder / name).write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")


def _text(chooser: random.Random, longest: int) -> str:
    return "".join(chooser.choice("abcdefgh ") for _ in range(chooser.randint(longest // 4, longest)))


if __name__ == "__main__":
    write_inputs(Path(sys.argv[1]), sys.argv[2])
