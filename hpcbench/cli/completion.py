"""What the shell offers when Tab is pressed: names of suites, experiments and profiles, states, columns, choices.

It never asks a scheduler, and where something cannot be read it offers nothing.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import typer

from hpcbench.errors import HpcbenchError

Complete = Callable[[str], list[str]]


def complete_from(values: Sequence[str]) -> Complete:
    """Return a completion that offers these values."""

    def complete(incomplete: str) -> list[str]:
        return [value for value in values if value.startswith(incomplete)]

    return complete


def complete_states(incomplete: str) -> list[str]:
    """Offer states, also after a comma."""
    from hpcbench.schemas.states import JobState

    return _after_comma(incomplete, list(JobState))


def complete_columns(incomplete: str) -> list[str]:
    """Offer keys of columns, also after a comma: those of CSV and the arguments of a training."""
    from hpcbench.report.columns import DATA_ONLY

    return _after_comma(incomplete, [*(column.key for column in DATA_ONLY), *_arguments()])


def complete_settings(incomplete: str) -> list[str]:
    """Offer the arguments of a training, also after a comma."""
    return _after_comma(incomplete, _arguments())


def _arguments() -> list[str]:
    from hpcbench.schemas.arguments import SftArgs

    return list(SftArgs.model_fields)


def _after_comma(incomplete: str, words: Sequence[str]) -> list[str]:
    before, comma, word = incomplete.rpartition(",")
    return [f"{before}{comma}{known}" for known in dict.fromkeys(words) if known.startswith(word)]


def complete_keep(incomplete: str) -> list[str]:
    """Offer what `clean --keep` takes."""
    from hpcbench.retention import KEEPS

    return [keep for keep in KEEPS if keep.startswith(incomplete)]


def complete_cluster(incomplete: str) -> list[str]:
    """Offer auto, local, and the names of the profiles."""
    from hpcbench.config.profile import profile_names

    return [name for name in ("auto", "local", *profile_names(os.environ)) if name.startswith(incomplete)]


def complete_suites(context: typer.Context, incomplete: str) -> list[str]:
    """Offer the suites of the save directory."""
    return [folder.name for folder in _suites(context) if folder.name.startswith(incomplete)]


def complete_names(context: typer.Context, incomplete: str) -> list[str]:
    """Offer experiments, and after a slash what lies in the suite or experiment that was typed."""
    return [name for name in _names(context, incomplete) if name.startswith(incomplete)]


def _names(context: typer.Context, incomplete: str) -> Iterator[str]:
    from hpcbench.storage.paths import JobPaths

    depth = incomplete.count("/")
    for suite in _suites(context):
        if depth == 0:
            yield suite.name
        elif not incomplete.startswith(f"{suite.name}/"):
            continue
        for experiment in _folders(suite):
            jobs = [job.name for job in _folders(experiment) if JobPaths(job).request.is_file()]
            if jobs and depth == 0:
                yield experiment.name
            elif jobs and depth == 1:
                yield f"{suite.name}/{experiment.name}"
            elif jobs:
                yield from (f"{suite.name}/{experiment.name}/{job}" for job in jobs)


def _suites(context: typer.Context) -> list[Path]:
    from hpcbench.cluster.save_dir import usual_save_dir
    from hpcbench.storage.paths import SuitePaths

    try:
        root = usual_save_dir(context.params.get("save_dir"))
    except HpcbenchError:
        return []
    return [folder for folder in _folders(root) if SuitePaths(root, folder.name).plan.is_file()]


def _folders(folder: Path) -> list[Path]:
    with contextlib.suppress(OSError):
        return sorted(entry for entry in folder.iterdir() if entry.is_dir())
    return []
