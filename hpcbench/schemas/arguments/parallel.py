"""Arguments that spread one training over several ranks or GPUs."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from hpcbench.schemas.arguments.base import Arguments, Words


class ParallelArgs(Arguments):
    """How model, optimizer state and sequences are divided among ranks; without any of these each rank has them all."""

    fsdp: Words = ()
    """Shard weights, gradients and optimizer state over ranks (FSDP2), by transformers' words: full_shard, or
    hybrid_shard to shard within each node alone; auto_wrap shards layer by layer, offload keeps shards in host
    memory."""
    fsdp_config: dict[str, Any] = Field(default_factory=dict)
    """Settings of fsdp by transformers' names, for example {activation_checkpointing: true}."""
