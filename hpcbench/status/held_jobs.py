"""Release the jobs that the queue holds back for a parent that completed, and cancel those of one that failed.

A parent is the job whose model another one takes. Its supervisor does so too; this covers what a dead node or a slow
disk left undone. Twice is harmless.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence

from hpcbench.errors import SchedulerError
from hpcbench.scheduler.protocol import Scheduler
from hpcbench.schemas.collection import Collection, JobView, SuiteView
from hpcbench.schemas.request import JobRef
from hpcbench.schemas.states import JobState
from hpcbench.schemas.submission import Submission
from hpcbench.schemas.suite_folder import SuiteOnDisk

logger = logging.getLogger(__name__)


def held_jobs(suite: SuiteView, latest: Mapping[JobRef, tuple[Submission, int]]) -> Iterator[JobView]:
    """Yield the jobs that the queue holds back until their parent is over."""
    for view in suite.jobs.values():
        place = latest.get(view.ref)
        if view.held and view.record is None and place is not None and place[0].after_key is not None:
            yield view


def release_held_jobs(suites: Sequence[SuiteOnDisk], collection: Collection, scheduler: Scheduler) -> tuple[int, int]:
    """Release and cancel held jobs as their parents' records require; return how many of each."""
    latest = {suite.plan.suite: suite.latest() for suite in suites}
    release: list[str] = []
    cancel: list[str] = []
    for suite in collection.suites:
        known = suite.jobs
        for view in held_jobs(suite, latest[suite.name]):  # only what was just seen held: Slurm reuses ids
            parent = None if view.parent is None else known.get(view.parent)
            if parent is None or view.scheduler_id is None or view.cluster != scheduler.name:
                continue
            if parent.state is JobState.COMPLETED and view.state is JobState.PENDING:
                release.append(view.scheduler_id)
            elif view.state is JobState.BLOCKED:
                cancel.append(view.scheduler_id)
    # Those that share a scheduler job share its id.
    release, cancel = list(dict.fromkeys(release)), list(dict.fromkeys(cancel))
    try:
        if release:
            scheduler.release(release)
        if cancel:
            scheduler.cancel(cancel)
    except SchedulerError as error:  # the next command tries again
        logger.warning("held jobs were neither released nor cancelled: %s", error.message)
        return 0, 0
    return len(release), len(cancel)
