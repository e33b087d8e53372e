"""Arguments of `cmd: export`: what is made of a model, and of which one."""

from __future__ import annotations

from hpcbench.schemas.arguments.base import Arguments


class ExportArgs(Arguments):
    """How weights are merged or quantised into a new model folder."""

    ckpt_dir: str | None = None
    """Checkpoint folder to export; None is the model itself, or what `ckpt_from` trains."""
    ckpt_from: str | None = None
    """Experiment of the same suite whose training is exported."""
