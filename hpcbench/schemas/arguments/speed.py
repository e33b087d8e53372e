"""Arguments that change how fast a training runs and what memory it takes, and not what it computes."""

from __future__ import annotations

from typing import Final, Literal, Self

from pydantic import Field, model_validator

from hpcbench.schemas.arguments.base import Arguments, PositiveInt

LigerKernel = Literal[
    "rope", "rms_norm", "layer_norm", "swiglu", "geglu", "cross_entropy", "fused_linear_cross_entropy"
]
"""Kernels that Liger Kernel's functions of the models take as arguments."""
HEAD_LOSSES: Final = ("chunked_cross_entropy", "use_cce")
"""Switches of losses that are computed from the hidden states before the head."""


class SpeedArgs(Arguments):
    """Kernels, compilation and losses that take less time or memory; each takes effect, or the job fails."""

    use_liger_kernel: bool = False
    """Replace layers and loss by the Triton kernels that Liger Kernel has for the model's type; on GPUs only."""
    liger_kernel_config: dict[LigerKernel, bool] = Field(default_factory=dict)
    """Which of its kernels, for example {fused_linear_cross_entropy: false}; those not named are as Liger has them."""
    torch_compile: bool = False
    """Compile the training's forward and backward passes with torch.compile; the first step then takes a minute or
    more. Evaluations run uncompiled."""
    torch_compile_backend: Literal["inductor", "aot_eager", "eager", "cudagraphs"] | None = None
    """Compiler behind torch.compile; None is inductor."""
    torch_compile_mode: Literal["default", "reduce-overhead", "max-autotune", "max-autotune-no-cudagraphs"] | None = (
        None
    )
    """What inductor optimizes for; None is default."""
    chunked_cross_entropy: bool = False
    """Apply head and loss to a part of the predicted tokens at a time: the logits, which a large vocabulary makes the
    largest tensor, never exist as a whole, and prompts have none."""
    chunked_cross_entropy_num_chunks: PositiveInt = 8
    """Number of these parts per forward pass."""
    use_cce: bool = False
    """Compute the loss with Apple's Cut Cross-Entropy (arXiv:2411.09009), which keeps no logits; alias
    cut_cross_entropy."""
    activation_offloading: bool = False
    """Keep the activations of the forward pass in host memory until the backward pass; on GPUs only."""

    @model_validator(mode="after")
    def _has_one_loss(self) -> Self:
        fuses = self.use_liger_kernel and self.liger_fuses_loss
        losses = [name for name in HEAD_LOSSES if getattr(self, name)]
        if fuses and losses:
            raise ValueError(
                f"use_liger_kernel and {losses[0]} both replace the loss: "
                "set liger_kernel_config: {fused_linear_cross_entropy: false}, or remove one of them"
            )
        if len(losses) > 1:
            raise ValueError(f"{losses[0]} and {losses[1]} both replace the loss: keep one of them")
        if self.liger_fuses_loss and self.liger_kernel_config.get("cross_entropy"):
            raise ValueError(
                "cross_entropy and fused_linear_cross_entropy of liger_kernel_config both replace the loss: "
                "set fused_linear_cross_entropy: false beside cross_entropy: true"
            )
        return self

    @property
    def liger_fuses_loss(self) -> bool:
        """Whether Liger's kernels, where they are used, compute the loss without logits; they do by default."""
        return self.liger_kernel_config.get("fused_linear_cross_entropy", True)

    @property
    def head_loss(self) -> str | None:
        """The argument that has the loss computed from the hidden states before the head, or None."""
        return next((name for name in HEAD_LOSSES if getattr(self, name)), None)
