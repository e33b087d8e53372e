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
WITH_ARGUMENTS: dict[str, dict[str, Any]] = {
    **{
        f"lora-{word}": {"sft_type": "lora", "lora_rank": 4, "init_lora_weights": word}
        for word in ("pissa", "pissa_niter_4", "olora", "orthogonal", "mica")
    },
    "lora-bf16": {"sft_type": "lora", "lora_dtype": "bf16"},
    "lora-regex": {"sft_type": "lora", "target_regex": r".*\.mlp\.(up|down)_proj"},
    "lora-pattern": {"sft_type": "lora", "peft_config": {"rank_pattern": {"q_proj": 2}, "layers_to_transform": [1]}},
    "ia3-modules": {"sft_type": "ia3", "lora_modules_to_save": ["norm"]},
    "vera-modules": {"sft_type": "vera", "lora_modules_to_save": ["norm"]},
    "full-frozen": {"sft_type": "full", "freeze_parameters_ratio": 0.4, "trainable_parameters": ["model.norm"]},
    "galore-frozen": {"sft_type": "galore", "galore_rank": 4, "freeze_parameters": ["model.embed_tokens"]},
}
"""Arguments that change what lora, ia3 and full train, or from where."""
