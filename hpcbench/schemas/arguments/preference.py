"""Arguments of learning from preferences (`cmd: rlhf`)."""

from __future__ import annotations

from typing import Literal

from hpcbench.schemas.arguments.base import Arguments

RlhfType = Literal["dpo", "orpo", "simpo", "kto", "cpo"]


class PreferenceArgs(Arguments):
    """How a model learns which of two answers is better."""

    rlhf_type: RlhfType | None = None
    """Loss of `cmd: rlhf`; None for every other command."""
