"""A suite after loading: experiments with every value resolved, typed and checked.

In: what `config/` read. Out: what `plan/` turns into jobs. Values only: nothing here reads a file.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hpcbench.schemas.arguments import CommandArgs, EvalArgs, ExportArgs, FrameworkArgs, InferArgs, SftArgs
from hpcbench.schemas.report_options import ReportOptions
from hpcbench.schemas.request import Command, Device, Framework, Resources


@dataclass(frozen=True, slots=True, kw_only=True)
class Experiment:
    """One named entry of a suite, after matrix and repeats were expanded."""

    suite: str
    name: str
    cmd: Command
    device: Device
    requirements: Resources
    eval_requirements: Resources
    eval_dataset: tuple[str, ...] = ()
    eval_args: Mapping[str, EvalArgs] = field(default_factory=dict)
    """Resolved arguments per eval dataset."""
    args: SftArgs | None = None
    """None only for a command whose suite names no model."""
    command: CommandArgs | None = None
    export: ExportArgs | None = None
    infer: InferArgs | None = None
    framework: Framework | None = None
    """What trains in place of hpcbench."""
    framework_args: FrameworkArgs | None = None
    env: Mapping[str, str] = field(default_factory=dict)
    info: Mapping[str, Any] = field(default_factory=dict)
    max_attempts: int = 10
    """Starts that time limits, preemption and node failures may use up."""
    repeat: int | None = None
    base_experiment: str | None = None
    source_of: Mapping[str, str] = field(default_factory=dict)
    line: int | None = None

    @property
    def ckpt_from(self) -> str | None:
        """Name of the experiment whose model its main job takes; in a suite that one is before it."""
        taker = self.export or self.infer or self.command
        return None if taker is None else taker.ckpt_from


@dataclass(frozen=True, slots=True, kw_only=True)
class Suite:
    """One config file; its stem is the report's group."""

    name: str
    file: Path
    experiments: tuple[Experiment, ...]
    overrides: tuple[str, ...] = ()
    """`--set` values it was loaded with; `retry` uses them again."""
    typed_in: Path | None = None
    """Folder that relative paths in them start from."""
    grows: bool = False
    """Whether the experiments that were planned before stay in the plan beside these."""
    report: ReportOptions = field(default_factory=ReportOptions)
    """How its results are to be shown: the `report:` block."""
    remarks: tuple[str, ...] = ()
    """What could not be checked while it was loaded."""
