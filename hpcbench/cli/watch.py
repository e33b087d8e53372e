"""The commands that stay, until no job is under way any more: `status --watch`, `collect --watch`, `submit --wait`."""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from fnmatch import fnmatchcase
from pathlib import Path

from hpcbench.cli.answers import status_answer
from hpcbench.cli.output import (
    print_line,
    print_report,
    print_status,
    print_warnings,
    status_screen,
)
from hpcbench.errors import plural
from hpcbench.invocation import quoted
from hpcbench.schemas.collection import Collection, JobView
from hpcbench.schemas.states import ALIVE, FAILED_STATES, JobState
from hpcbench.status.gather import count_states
from hpcbench.status.polling import poll
from hpcbench.storage.json_files import write_text

Choose = Callable[[Collection], list[JobView]]
Poll = Callable[..., Iterator[Collection]]
"""`poll`, or snapshots that a test made."""


def is_over(jobs: Sequence[JobView]) -> bool:
    """Return whether none of the jobs is pending, running or unknown, besides those out of reach (pure)."""
    return not any(job.state in ALIVE and not job.is_out_of_reach for job in jobs)


def end_line(jobs: Sequence[JobView]) -> str:
    """Return the last line of a command that waited (pure)."""
    num_far = sum(job.state in ALIVE and job.is_out_of_reach for job in jobs)
    far = f", besides {plural(num_far, 'job')} of other users or on other clusters" if num_far else ""
    return f"no job is under way any more{far}"


def without_progress(jobs: Sequence[JobView]) -> tuple[object, ...]:
    """Return what differs between two snapshots for a reader of lines: all but progress (pure)."""
    return tuple(
        (job.suite, job.experiment, job.job, job.state, job.scheduler_id, job.reason, _recorded_at(job)) for job in jobs
    )


def _recorded_at(job: JobView) -> str | None:
    return None if job.record is None else job.record.finished_at


def watch_status(
    save_dir: Path, choose: Choose, *, every_s: float | None, as_json: bool, by_job: bool = False, poll: Poll = poll
) -> None:
    """Show the jobs until they are over: in place on a terminal, elsewhere again when something changed."""
    snapshots = poll(save_dir, every_s=every_s)
    if as_json:
        _watch_as_json(snapshots, choose)
    elif sys.stdout.isatty():
        _watch_in_place(snapshots, choose, by_job=by_job)
    else:
        _watch_as_lines(snapshots, choose, by_job=by_job)


def _watch_in_place(snapshots: Iterator[Collection], choose: Choose, *, by_job: bool) -> None:
    jobs: Sequence[JobView] = ()
    with status_screen(by_job=by_job) as screen:
        for collection in snapshots:
            jobs = choose(collection)
            over = is_over(jobs)
            screen.show(collection, jobs, complete=over)
            if over:
                break
    print_line(end_line(jobs))


def _watch_as_lines(snapshots: Iterator[Collection], choose: Choose, *, by_job: bool) -> None:
    shown: object = None
    for collection in snapshots:
        jobs = choose(collection)
        if (now := (without_progress(jobs), collection.warnings)) != shown:
            shown = now
            print_line(f"{collection.collected_at}:")
            print_status(collection, jobs, by_job=by_job, complete=True)
        if is_over(jobs):
            print_line(end_line(jobs))
            break


def _watch_as_json(snapshots: Iterator[Collection], choose: Choose) -> None:
    shown: object = None
    for collection in snapshots:
        jobs = choose(collection)
        answer = status_answer(collection, jobs)
        if (now := (answer.jobs, answer.warnings)) != shown:
            shown = now
            print_line(json.dumps(answer.model_dump(mode="json")))
        if is_over(jobs):
            break


def watch_report(
    save_dir: Path,
    names: Sequence[str],
    output: Path,
    render: Callable[[Collection], str],
    *,
    every_s: float | None,
    poll: Poll = poll,
) -> None:
    """Rewrite a report whenever something but progress changed, until no job is under way."""

    def rewrite(collection: Collection) -> None:
        write_text(output, render(collection))
        print_line(f"{collection.collected_at}: wrote {output} ({count_states(collection.jobs) or 'no jobs'})")

    watch_changes(save_dir, names, rewrite, every_s=every_s, poll=poll)


def watch_changes(
    save_dir: Path,
    names: Sequence[str],
    act: Callable[[Collection], None],
    *,
    every_s: float | None,
    with_progress: bool = False,
    poll: Poll = poll,
) -> None:
    """Act on each collection in which something changed, until no job is under way.

    Args:
        save_dir: where the suites are.
        names: of the suites; empty for all.
        act: what to do.
        every_s: how often the scheduler is asked; None as its profile says.
        with_progress: whether progress of running jobs is a change, too.
        poll: where the collections come from.
    """
    shown: object = None
    for collection in poll(save_dir, names, every_s=every_s):
        progress = [dict(job.progress) for job in collection.jobs] if with_progress else None
        if (now := (without_progress(collection.jobs), collection.warnings, progress)) != shown:
            shown = now
            print_warnings(collection)
            act(collection)
        if is_over(collection.jobs):
            print_line(end_line(collection.jobs))
            break


def wait_for_slurm(save_dir: Path, names: Sequence[str], only: Sequence[str] = (), *, poll: Poll = poll) -> bool:
    """Wait until no job of the suites, or of the experiments in `only`, is under way; return whether one failed.

    Jobs left planned and running out of GPU memory (a result) are not failures; one submitted that never ran is.
    """
    shown = ""
    last = Collection(suites=(), collected_at="")
    jobs: Sequence[JobView] = ()
    for collection in poll(save_dir, names):
        last = collection
        jobs = [job for job in last.jobs if not only or any(fnmatchcase(job.experiment, glob) for glob in only)]
        if (text := "\n".join([count_states(jobs), *_stuck_lines(jobs)])) != shown:
            print_line(text)
            shown = text
        if is_over(jobs):
            break
    print_report(last, names)
    excused = _blocked_by_results(last)
    return any(
        job.state in FAILED_STATES
        or (job.state is JobState.PLANNED and job.reason)
        or (job.state is JobState.BLOCKED and (job.suite, job.experiment, job.job) not in excused)
        for job in jobs
    )


def _stuck_lines(jobs: Sequence[JobView]) -> list[str]:
    """Return a line for each reason for which pending jobs never start by themselves (pure)."""
    reasons = Counter(job.reason for job in jobs if job.state is JobState.PENDING and job.hint)
    return [
        f"  {count} will not start without help: {reason}; see {quoted('why')}" for reason, count in reasons.items()
    ]


def _blocked_by_results(collection: Collection) -> set[tuple[str, str, str]]:
    """Return the jobs that cannot run because their train job ran out of GPU memory: that is a result (pure)."""
    return {
        (job.suite, job.experiment, job.job)
        for suite in collection.suites
        for experiment in suite.experiments
        if experiment.main is not None and experiment.main.state is JobState.OUT_OF_MEMORY
        for job in experiment.evals
    }
