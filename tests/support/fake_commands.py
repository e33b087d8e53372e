"""Slurm's commands for tests that have no Slurm: each prints a given text or fails, and is remembered."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from hpcbench.errors import SchedulerError

Output = str | SchedulerError | Callable[[], str]


@dataclass(slots=True)
class FakeCommands:
    """A stand-in for `run_command`."""

    outputs: Mapping[str, Output] = field(default_factory=dict)
    """What each program prints, or how it fails; by its name."""
    calls: list[Sequence[str]] = field(default_factory=list)

    def __call__(self, command: Sequence[str], *, timeout_s: float = 0.0) -> str:  # noqa: ARG002  # as `run_command`
        self.calls.append(command)
        output = self.outputs[command[0]]
        if isinstance(output, SchedulerError):
            raise output
        return output if isinstance(output, str) else output()

    @property
    def programs(self) -> list[str]:
        """The programs that were called, in order."""
        return [command[0] for command in self.calls]
