"""Arguments of `cmd: infer`: what answers, to which prompts, and how."""

from __future__ import annotations

from hpcbench.schemas.arguments.base import Arguments


class InferArgs(Arguments):
    """How a model answers the prompts of a dataset."""

    ckpt_dir: str | None = None
    """Checkpoint folder that answers; None is the model itself, or what `ckpt_from` trains."""
    ckpt_from: str | None = None
    """Experiment of the same suite whose training answers."""
