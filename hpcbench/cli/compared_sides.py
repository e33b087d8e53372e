"""What `compare` is given: a save directory, a suite, an experiment, or a saved JSON report.

In: one word of the command line. Out: a side of the comparison. What is none of these is refused with all of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from hpcbench.cli.selection import gather_suites
from hpcbench.errors import PlanError, did_you_mean
from hpcbench.schemas.suite_folder import read_suites
from hpcbench.storage.paths import SuitePaths

if TYPE_CHECKING:
    from hpcbench.compare.runs import Side

FORMS = "a save directory, DIR:SUITE, a suite, SUITE/EXPERIMENT, or a report.json of `hpcbench collect`"


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where one side is."""

    report: Path | None = None
    save_dir: Path
    suite: str | None = None
    """None for all suites."""
    experiment: str | None = None
    """A name or glob; None for all experiments."""


def read_side(text: str, save_dir: Path) -> Side:
    """Return what a word means.

    Raises:
        PlanError: nothing of this name is there.
        ReportError: a file is not a report that can be compared.
    """
    from hpcbench.compare.runs import side_of
    from hpcbench.compare.saved_report import side_of_report

    place = find_place(text, save_dir)
    if place.report is not None:
        side = side_of_report(place.report, text, suite=place.suite, pattern=place.experiment)
    else:
        suites = None if place.suite is None else [place.suite]
        side = side_of(gather_suites(place.save_dir, suites), text, place.experiment)
    if not side.experiments:
        raise _no_experiment(text, place)
    return side


def find_place(text: str, save_dir: Path) -> Place:
    """Return where a word points to; a path that exists comes before a suite's name.

    Raises:
        PlanError: it is neither a path of results nor the name of a suite.
    """
    if (place := _place_of_path(Path(text).expanduser(), save_dir)) is not None:
        return place
    head, colon, name = text.rpartition(":")
    if colon and (place := _place_of_path(Path(head).expanduser(), save_dir)) is not None and place.suite is None:
        suite, _, experiment = name.partition("/")
        return Place(report=place.report, save_dir=place.save_dir, suite=suite or None, experiment=experiment or None)
    suite, _, experiment = text.partition("/")
    suites = [found.plan.suite for found in read_suites(save_dir)]
    if suite in suites:
        return Place(save_dir=save_dir, suite=suite, experiment=experiment or None)
    hint = did_you_mean(suite, suites) or (f"suites in {save_dir}: {', '.join(suites)}" if suites else None)
    raise PlanError(f"{text}: no results of this name\n  expected: {FORMS}", hint=hint)


def _place_of_path(path: Path, save_dir: Path) -> Place | None:
    """Return what a path holds: a report, a suite, an experiment or suites."""
    if path.suffix == ".json" and path.is_file():
        return Place(report=path, save_dir=save_dir)
    if not path.is_dir():
        return None
    folder = path.resolve()
    if SuitePaths(folder.parent, folder.name).plan.is_file():
        return Place(save_dir=folder.parent, suite=folder.name)
    above = folder.parent
    if SuitePaths(above.parent, above.name).plan.is_file():
        return Place(save_dir=above.parent, suite=above.name, experiment=folder.name)
    return Place(save_dir=path.absolute()) if read_suites(path) else None


def _no_experiment(text: str, place: Place) -> PlanError:
    if place.experiment is None:
        return PlanError(f"{text}: no experiments")
    return PlanError(f"{text}: no experiment matches {place.experiment}")
