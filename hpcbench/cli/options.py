"""Arguments and options that several verbs share, so that one name means one thing."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from hpcbench.cli.completion import complete_cluster, complete_names, complete_states
from hpcbench.cli.conventions import BY_PROFILE
from hpcbench.invocation import repeat_save_dir

MIN_WATCH_S = 5.0


def note_save_dir(context: typer.Context, given: Path | None) -> Path | None:
    """Have the commands that are printed repeat --save-dir where it was typed; a variable of the shell stays there."""
    source = context.get_parameter_source("save_dir")
    if given is not None and source is not None and source.name == "COMMANDLINE":
        repeat_save_dir(Path(os.path.expanduser(given)))  # noqa: PTH111  # Path.expanduser may raise
    return given


Configs = Annotated[list[Path], typer.Argument(metavar="CONFIG", help="Suite files, or folders that hold some.")]
Names = Annotated[
    list[str] | None,
    typer.Argument(metavar="NAME", help="Globs: experiment, suite/experiment[/job].", autocompletion=complete_names),
]
SaveDir = Annotated[
    Path | None,
    typer.Option(
        "--save-dir",
        callback=note_save_dir,
        metavar="DIR",
        envvar="HPCBENCH_SAVE_DIR",
        help="Root of all results; default: the profile's, else logs/.",
    ),
]
Cluster = Annotated[
    str,
    typer.Option(
        "--cluster",
        metavar="NAME",
        help="auto, local, a profile's name, or a profile file.",
        autocompletion=complete_cluster,
    ),
]
Only = Annotated[
    list[str] | None, typer.Option("--only", metavar="GLOB", help="Only experiments that match; repeatable.")
]
Retry = Annotated[
    str | None,
    typer.Option(
        "--retry", metavar="STATE,...", help="Run jobs in these states again.", autocompletion=complete_states
    ),
]
MaxJobs = Annotated[int | None, typer.Option("--max-jobs", metavar="N", min=1, help="Submit at most so many now.")]
Force = Annotated[bool, typer.Option("--force", help="Run changed experiments; old records are kept.")]
Overrides = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Override, e.g. args.max_steps=10.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for machines.")]
States = Annotated[
    str | None,
    typer.Option("--state", metavar="STATE,...", help="Only jobs in these states.", autocompletion=complete_states),
]


def _check_watch(seconds: float | None) -> float | None:
    if seconds is not None and seconds != BY_PROFILE and seconds < MIN_WATCH_S:
        raise typer.BadParameter(f"{seconds:g}: at least {MIN_WATCH_S:g} seconds, out of courtesy to the scheduler")
    return seconds


Watch = Annotated[
    float | None,
    typer.Option(
        "--watch",
        callback=_check_watch,
        metavar="[SECONDS]",
        help="Refresh until no job is under way: files every 5 s, the scheduler every SECONDS; default: the profile's "
        "poll_s, 30.",
    ),
]
