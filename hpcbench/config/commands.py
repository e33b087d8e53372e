"""The command of an experiment: what is done, and by which framework where hpcbench itself does not train.

In: merged layers. Out: the command, or the reason why there is none. It reads no file.
"""

from __future__ import annotations

from hpcbench.config.command_arguments import LOSSES
from hpcbench.config.layers import Layer
from hpcbench.config.other_tools import OTHER_COMMANDS
from hpcbench.errors import Problem, did_you_mean
from hpcbench.schemas.request import FRAMEWORKS, Command, Framework
from hpcbench.storage.located_yaml import Located, show

COMMANDS: tuple[Command, ...] = ("sft", "pt", "rlhf", "export", "infer", "eval", "command")
COMMAND_WORDS: tuple[str, ...] = (*COMMANDS, *LOSSES, *FRAMEWORKS)
"""All values of `cmd`."""


def read_cmd(layer: Layer, *, at: Located, problems: list[Problem]) -> Command | None:
    """Return the command of an experiment, or None with the reason in `problems`."""
    value = layer.values.get("cmd")
    expected = ", ".join(COMMAND_WORDS)
    if value is None or value.is_forgotten:
        problems.append((value or at).problem("`cmd` is missing", expected=expected))
        return None
    if value.value in COMMANDS:
        return value.value
    if value.value in LOSSES:
        return "rlhf"
    if value.value in FRAMEWORKS:
        return "sft"
    if isinstance(value.value, str) and (other := OTHER_COMMANDS.get(value.value)) is not None:
        message = f"`cmd: {value.value}` is known but not supported by this version: {other.why}"
        problems.append(value.problem(message, expected=expected, hint=other.in_suite))
    else:
        hint = did_you_mean(str(value.value), COMMAND_WORDS)
        problems.append(value.problem(f"unknown command {show(value)}", expected=expected, hint=hint))
    return None


def read_framework(layer: Layer) -> Framework | None:
    """Return the framework that trains in place of hpcbench, None where none does."""
    value = layer.values.get("cmd")
    return next((name for name in FRAMEWORKS if value is not None and value.value == name), None)
