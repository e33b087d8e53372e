"""Writes model folders by hand: a configuration, headers of weights and a tokenizer, of a few kilobytes, without torch."""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

LLAMA: Mapping[str, Any] = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "vocab_size": 8,
    "hidden_size": 4,
    "num_hidden_layers": 2,
    "max_position_embeddings": 16,
}
GPT2: Mapping[str, Any] = {
    "architectures": ["GPT2LMHeadModel"],
    "model_type": "gpt2",
    "vocab_size": 8,
    "n_embd": 4,
    "n_layer": 2,
    "n_positions": 16,
}
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 1234\n"


def llama_tensors(*, rows: int = 8, num_layers: int = 2, width: int = 4) -> dict[str, tuple[int, ...]]:
    """Return the shapes of a Llama whose MLP is as wide as all else."""
    layers = {
        f"model.layers.{layer}.{name}.weight": (width, width)
        for layer in range(num_layers)
        for name in (
            *("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj"),
            *("mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"),
        )
    }
    norms = {f"model.layers.{layer}.input_layernorm.weight": (width,) for layer in range(num_layers)}
    return {"model.embed_tokens.weight": (rows, width), **layers, **norms, "model.norm.weight": (width,)} | {
        "lm_head.weight": (rows, width)
    }


def gpt2_tensors() -> dict[str, tuple[int, ...]]:
    """Return the shapes of a GPT-2 of one layer, four wide, with sixteen positions."""
    return {"wte.weight": (8, 4), "wpe.weight": (16, 4), "h.0.attn.c_attn.weight": (4, 12), "ln_f.weight": (4,)}


def write_safetensors(path: Path, tensors: Mapping[str, tuple[int, ...]]) -> None:
    """Write tensors of fp32 zeros."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, shape in tensors.items():
        start, end = end, end + 4 * math.prod(shape)
        header[name] = {"dtype": "F32", "shape": list(shape), "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + bytes(end))


def write_model(
    folder: Path,
    config: Mapping[str, Any] = LLAMA,
    *,
    tensors: Mapping[str, tuple[int, ...]] | None = None,
    tokenizer: Mapping[str, Any] | None = None,
    more: Mapping[str, Any] | None = None,
) -> Path:
    """Write a model folder; `more` goes into its configuration, `tokenizer` into tokenizer_config.json."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps({**config, **(more or {})}))
    write_safetensors(folder / "model.safetensors", llama_tensors() if tensors is None else tensors)
    added = [{"id": 6, "content": "<end>", "special": True}, {"id": 7, "content": "<pad>", "special": True}]
    vocabulary = {"a": 0, "b": 1, "c": 2, "d": 3, "e": 4, "f": 5}
    core = {"version": "1.0", "added_tokens": added, "model": {"type": "BPE", "vocab": vocabulary, "merges": []}}
    (folder / "tokenizer.json").write_text(json.dumps(core))
    options = {"eos_token": "<end>", "pad_token": "<pad>"} if tokenizer is None else dict(tokenizer)
    (folder / "tokenizer_config.json").write_text(json.dumps(options))
    return folder
