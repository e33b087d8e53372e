"""Configurations of DeepSpeed: those that ship in `templates/deepspeed/`, by name, and a user's own file.

In: a name such as `zero2`, or the path of a JSON file. Out: the configuration, and what it says of ZeRO
(arXiv:1910.02054). It does not import DeepSpeed.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias, cast

from hpcbench.errors import HpcbenchError, os_reason
from hpcbench.storage.package_data import shipped_file

DEEPSPEED_WORDS: Final = ("zero0", "zero1", "zero2", "zero2_offload", "zero3", "zero3_offload")
"""Names of shipped configurations, as ms-swift's."""
LAST_STAGE: Final = 3

Stage: TypeAlias = Literal[0, 1, 2, 3]


class DeepSpeedFileError(HpcbenchError):
    """A configuration of DeepSpeed that cannot be read or understood."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeepSpeedConfig:
    """One configuration, as DeepSpeed reads it."""

    values: dict[str, Any]

    @property
    def zero(self) -> dict[str, Any]:
        """Its section on ZeRO, empty where it has none."""
        return cast("dict[str, Any]", self.values.get("zero_optimization", {}))

    @property
    def stage(self) -> Stage:
        """What ranks share: 0 nothing, 1 the optimizer's state, 2 gradients too, 3 weights too."""
        return cast("Stage", self.zero.get("stage", 0))

    @property
    def offloads_optimizer(self) -> bool:
        """Whether the optimizer's state is in host memory, and its step on the CPU."""
        return _is_on_cpu(self.zero.get("offload_optimizer"))

    @property
    def offloads_weights(self) -> bool:
        """Whether a rank's share of the weights is in host memory between its uses."""
        return _is_on_cpu(self.zero.get("offload_param"))

    @property
    def description(self) -> str:
        """Return the stage in a report's words, for example `ZeRO-3, optimizer and weights offloaded`."""
        parts = ("optimizer", self.offloads_optimizer), ("weights", self.offloads_weights)
        offloaded = " and ".join(name for name, is_offloaded in parts if is_offloaded)
        return f"ZeRO-{self.stage}" + (f", {offloaded} offloaded" if offloaded else "")


def read_deepspeed(name: str) -> DeepSpeedConfig:
    """Return the configuration of a name or of an absolute path.

    Raises:
        DeepSpeedFileError: there is no such file, or it holds something else.
    """
    path = shipped_file("templates", "deepspeed", f"{name}.json") if name in DEEPSPEED_WORDS else Path(name)
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise DeepSpeedFileError(f"{path}: {os_reason(error)}") from error
    except ValueError as error:
        raise DeepSpeedFileError(f"{path}: no JSON: {error}") from error
    zero = values.get("zero_optimization", {}) if isinstance(values, dict) else None
    if not isinstance(zero, dict):
        raise DeepSpeedFileError(f"{path}: not a configuration of DeepSpeed", hint="it is a JSON object of sections")
    stage = zero.get("stage", 0)
    if not isinstance(stage, int) or isinstance(stage, bool) or not 0 <= stage <= LAST_STAGE:
        raise DeepSpeedFileError(f"{path}: zero_optimization.stage is {stage!r}", hint="it is 0, 1, 2 or 3")
    return DeepSpeedConfig(values=values)


def _is_on_cpu(section: object) -> bool:
    return isinstance(section, dict) and section.get("device", "cpu") == "cpu"
