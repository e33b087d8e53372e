"""Arguments with which each method of peft fits the tiny models, whose layers are 16 to 48 wide."""

from __future__ import annotations

from typing import Any

from hpcbench.schemas.tuners import list_peft_methods

_TOKENS = {"num_virtual_tokens": 4}
_FIELDS: dict[str, dict[str, Any]] = {
    "adaption_prompt": {"adapter_len": 4, "adapter_layers": 2},
    "c3a": {"block_size": 8},
    "cartridge": _TOKENS,
    "fourierft": {"n_frequency": 50},
    "miss": {"r": 8},
    "p_tuning": {**_TOKENS, "encoder_hidden_size": 16},
    "prefix_tuning": _TOKENS,
    "prompt_tuning": _TOKENS,
    "psoft": {"r": 4},
    "road": {"group_size": 8},
    "shira": {"r": 2},
    "trainable_tokens": {"token_indices": [97, 98, 99, 100]},
    "vblora": {"vector_length": 8, "num_vectors": 16},
    "waveft": {"n_frequency": 50},
}
PEFT_METHODS: dict[str, dict[str, Any]] = {
    method: {"sft_type": method, "peft_config": _FIELDS.get(method, {})} for method in list_peft_methods()
}
"""Arguments of each method, by its name."""
LLAMA_ONLY = frozenset({"adaption_prompt"})
"""Methods that peft has for the attention of a few architectures."""
