"""Arguments of trainings by another framework (`cmd: llamafactory`, `ms_swift`, `trl`, `axolotl`)."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from hpcbench.schemas.arguments.base import Arguments


class FrameworkArgs(Arguments):
    """What a training by another framework takes beside the arguments of `sft`."""

    framework_args: dict[str, Any] = Field(default_factory=dict)
    """More settings of the framework's own file, by its names, for example {template: qwen} of LLaMA-Factory; those
    that an argument stands for are refused."""
