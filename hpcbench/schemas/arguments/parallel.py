"""Arguments that spread one training over several ranks or GPUs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, Literal

from pydantic import Field

from hpcbench.schemas.arguments.base import Arguments, Words

Strategy = Literal["full_shard", "shard_grad_op", "hybrid_shard", "hybrid_shard_zero2"]
STRATEGIES: Final[tuple[Strategy, ...]] = ("full_shard", "shard_grad_op", "hybrid_shard", "hybrid_shard_zero2")
FSDP_WORDS: Final = (*STRATEGIES, "auto_wrap", "offload")
"""transformers' words of `fsdp`."""
LAYERS, BY_SIZE, WHOLE = WRAP_POLICIES = ("TRANSFORMER_BASED_WRAP", "SIZE_BASED_WRAP", "NO_WRAP")
"""accelerate's words of `auto_wrap_policy`: what is gathered together."""
FSDP_SETTINGS: Final = (
    *("activation_checkpointing", "reshard_after_forward", "cpu_offload", "auto_wrap_policy", "min_num_params"),
    *("transformer_layer_cls_to_wrap", "dp_replicate_size", "version"),
)
"""The keys of `fsdp_config`, each with or without fsdp_ before it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FsdpSettings:
    """What `fsdp` and `fsdp_config` ask for together."""

    strategy: Strategy
    reshard_after_forward: bool
    """Whether a layer's gathered weights are freed between its forward and its backward pass."""
    offload: bool
    activation_checkpointing: bool
    auto_wrap_policy: str
    min_num_params: int | None
    layer_classes: tuple[str, ...]
    dp_replicate_size: int | None

    @property
    def is_hybrid(self) -> bool:
        """Whether the ranks hold the model several times, each time in shards."""
        return self.strategy.startswith("hybrid")

    def count_replicas(self, *, num_nodes: int) -> int:
        """Return how many times the ranks hold the model together: once, or with hybrid_shard once per node."""
        return (self.dp_replicate_size or num_nodes) if self.is_hybrid else 1


class ParallelArgs(Arguments):
    """How model, optimizer state and sequences are divided among ranks; without any of these each rank has them all."""

    fsdp: Words = ()
    """Shard weights, gradients and optimizer state over ranks (FSDP2), by transformers' words: full_shard;
    shard_grad_op, which gathers weights once per step; hybrid_shard, which shards within each node; with auto_wrap,
    which is the default, layer by layer; with offload in host memory. Alias: fsdp2, for full_shard auto_wrap."""
    fsdp_config: dict[str, Any] = Field(default_factory=dict)
    """Settings of fsdp by transformers' names: activation_checkpointing (as gradient_checkpointing),
    reshard_after_forward, transformer_layer_cls_to_wrap, min_num_params, auto_wrap_policy, cpu_offload,
    dp_replicate_size (how often hybrid_shard holds the model; by default once per node)."""
    deepspeed: str | None = None
    """Share optimizer state (zero1), gradients too (zero2), weights too (zero3) among ranks with DeepSpeed's ZeRO;
    with them in host memory: zero2_offload, zero3_offload; or the path of your own JSON file. zero0 shares
    nothing."""

    @property
    def fsdp_settings(self) -> FsdpSettings:
        """What `fsdp` and `fsdp_config` ask for together, once plan has checked them."""
        given = fsdp_config_of(self.fsdp_config)
        strategy = next((word for word in STRATEGIES if word in self.fsdp), STRATEGIES[0])
        min_num_params = given.get("min_num_params")
        classes = given.get("transformer_layer_cls_to_wrap", ())
        return FsdpSettings(
            strategy=strategy,
            reshard_after_forward=given.get("reshard_after_forward", strategy in {"full_shard", "hybrid_shard"}),
            offload="offload" in self.fsdp or given.get("cpu_offload", False),
            activation_checkpointing=given.get("activation_checkpointing", False),
            auto_wrap_policy=given.get("auto_wrap_policy", BY_SIZE if min_num_params else LAYERS),
            min_num_params=min_num_params,
            layer_classes=(classes,) if isinstance(classes, str) else tuple(classes),
            dp_replicate_size=given.get("dp_replicate_size"),
        )


def fsdp_config_of(given: dict[str, Any]) -> dict[str, Any]:
    """Return `fsdp_config` with its keys as transformers calls them, without fsdp_ before them."""
    return {name.removeprefix("fsdp_"): value for name, value in given.items()}
