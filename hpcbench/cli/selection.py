"""Names and globs that a person typed: one that matches nothing at all is a typo, and refused.

A name that matches jobs in other states than those a verb is for is not a typo.
"""

from __future__ import annotations

from collections.abc import Collection as Words
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

from hpcbench.errors import PlanError, did_you_mean, name_first
from hpcbench.invocation import quoted
from hpcbench.schemas.collection import Collection, JobView, jobs_named
from hpcbench.schemas.request import EVAL_PREFIX
from hpcbench.schemas.states import JobState
from hpcbench.status.gather import gather

if TYPE_CHECKING:
    from hpcbench.schemas.suite import Suite

NO_NAMES: Mapping[str, str] = MappingProxyType({})


def _no_suites() -> str:
    return f"there are no suites; {quoted('submit', 'CONFIG')} first, or name the right --save-dir"


def choose_word(option: str, typed: str, known: Sequence[str], *, other_names: Mapping[str, str] = NO_NAMES) -> str:
    """Return which of a few words was typed, in upper or lower case; raise PlanError for none of them."""
    word = typed.strip().lower()
    word = other_names.get(word, word)
    if word not in known:
        expected = f"expected: {', '.join(known)}"
        raise PlanError(f"{option} {typed}: unknown; {expected}", hint=did_you_mean(word, known))
    return word


def gather_named(save_dir: Path, names: Sequence[str] | None, *, release_held: bool = True) -> Collection:
    """Collect all suites; raise PlanError where there are none, or one of these names and globs matches no job."""
    collection = gather(save_dir, release_held=release_held)
    _refuse_no_suites(collection, save_dir)
    _refuse_unknown(collection, save_dir, names)
    return collection


def refuse_unknown_jobs(save_dir: Path, names: Sequence[str] | None) -> None:
    """Raise PlanError where there are no suites, and for names and globs that match no job, reading files alone."""
    collection = gather(save_dir, release_held=False, find=lambda _: None)
    _refuse_no_suites(collection, save_dir)
    _refuse_unknown(collection, save_dir, names)


def _refuse_no_suites(collection: Collection, save_dir: Path) -> None:
    if not collection.suites:
        raise PlanError(f"{save_dir}: no suites found", hint=_no_suites())


def _refuse_unknown(collection: Collection, save_dir: Path, names: Sequence[str] | None) -> None:
    jobs = collection.all_jobs
    suites = {suite.name for suite in collection.suites}
    unknown = [
        name
        for name in names or ()
        if not any(fnmatchcase(suite, name) for suite in suites) and not jobs_named(jobs, name)
    ]
    if unknown:
        known = suites | {job.experiment for job in jobs} | {f"{job.suite}/{job.experiment}" for job in jobs}
        known |= {f"{job.suite}/{job.experiment}/{job.job}" for job in jobs}
        raise _refusal(f"{save_dir}: no such job", unknown, known, f"{quoted('status')} shows all names")


def parse_states(text: str | None) -> tuple[JobState, ...]:
    """Return the states in `failed,timeout`; raise PlanError for a word that is not a state."""
    words = [] if text is None else [word for word in text.split(",") if word.strip()]
    return tuple(JobState(choose_word("state", word, list(JobState))) for word in words)


def need_jobs(jobs: Sequence[JobView], names: Sequence[str] | None) -> None:
    """Raise PlanError where there are no jobs."""
    if not jobs:
        raise PlanError(f"no such job: {' '.join(names or ['(all)'])}", hint=f"{quoted('status')} shows all names")


def choose_followed(jobs: Sequence[JobView], name: str) -> JobView:
    """Return the job whose log is followed: the one that runs, else the main job of the one experiment that is meant.

    Raises:
        PlanError: several may be meant.
    """
    running = [job for job in jobs if job.state is JobState.RUNNING]
    mains = [job for job in jobs if not job.job.startswith(EVAL_PREFIX)]
    for found in (running, mains, jobs):
        if len(found) == 1:
            return found[0]
        if found:
            names = name_first([f"{job.suite}/{job.experiment}/{job.job}" for job in found])
            what = "run" if found is running else "have logs"
            raise PlanError(f"{name}: several jobs {what}; expected: one of {names}")
    raise PlanError(f"{name}: no log yet")


def gather_suites(save_dir: Path, names: Sequence[str] | None) -> Collection:
    """Collect the suites of these names and globs, or all; raise PlanError where one matches none or none are there."""
    collection = gather(save_dir, names or ())
    if not names:
        _refuse_no_suites(collection, save_dir)
    unknown = [name for name in names or () if not any(fnmatchcase(suite.name, name) for suite in collection.suites)]
    if unknown:
        known = {suite.name for suite in gather(save_dir, release_held=False, find=lambda _: None).suites}
        raise _refusal(f"{save_dir}: no such suite", unknown, known, f"there are: {', '.join(sorted(known))}")
    return collection


def refuse_unknown_experiments(suites: Sequence[Suite], only: Sequence[str] | None) -> None:
    """Raise PlanError for an `--only` that no experiment matches, with what may have been meant."""
    names = {experiment.name for suite in suites for experiment in suite.experiments}
    files = dict.fromkeys(suite.file for suite in suites)
    unknown = [glob for glob in only or () if not any(fnmatchcase(name, glob) for name in names)]
    if unknown:
        raise _refusal("--only: no such experiment", unknown, names, f"{quoted('plan', *files)} shows all names")


def _refusal(what: str, unknown: Sequence[str], known: Words[str], otherwise: str) -> PlanError:
    hints = dict.fromkeys(hint for name in unknown if (hint := did_you_mean(name, sorted(known))) is not None)
    return PlanError(f"{what}: {' '.join(unknown)}", hint="; ".join(hints) or (otherwise if known else _no_suites()))
