"""Arguments and options that several verbs share, so that one name means one thing.

In: nothing. Out: annotated types for typer. No logic, no imports but typer.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Configs = Annotated[list[Path], typer.Argument(metavar="CONFIG...", help="Suite files, or folders that hold some.")]
Names = Annotated[
    list[str] | None, typer.Argument(metavar="[NAME...]", help="Globs: experiment, suite/experiment[/job].")
]
SaveDir = Annotated[
    Path | None,
    typer.Option(
        "--save-dir", envvar="HPCBENCH_SAVE_DIR", help="Root of all results; default: the profile's, else logs/."
    ),
]
Cluster = Annotated[str, typer.Option("--cluster", help="auto, local, a profile's name, or a profile file.")]
Only = Annotated[
    list[str] | None, typer.Option("--only", metavar="GLOB", help="Only experiments that match; repeatable.")
]
Retry = Annotated[str | None, typer.Option("--retry", metavar="STATE,...", help="Run jobs in these states again.")]
Force = Annotated[bool, typer.Option("--force", help="Run changed experiments; old records are kept.")]
Overrides = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Override, e.g. args.max_steps=10.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for machines.")]
States = Annotated[str | None, typer.Option("--state", metavar="STATE,...", help="Only jobs in these states.")]
