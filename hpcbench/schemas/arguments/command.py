"""Arguments of `cmd: command`."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from hpcbench.schemas.arguments.base import Arguments


class CommandArgs(Arguments):
    """Any program as an experiment's job (`cmd: command`)."""

    command: Annotated[tuple[str, ...], Field(min_length=1)]
    """Program and arguments; never seen by a shell. Run in the job's folder, once per node."""
    cwd: str | None = None
    """Folder to run in; None is the attempt's folder."""
    ckpt_from: str | None = None
    """Experiment of the same suite whose model the program takes: `{checkpoint}` and HPCBENCH_CHECKPOINT are its
    folder."""
    output_model: str | None = None
    """Model folder that the program leaves behind, for evals; relative to cwd."""
