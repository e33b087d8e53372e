"""Release the held evals of a train job that completed, and cancel those of one that failed.

The train's supervisor does so too; this covers what a dead node or a slow disk left undone. Twice is harmless.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence

from hpcbench.errors import SchedulerError
from hpcbench.scheduler.protocol import Scheduler
from hpcbench.schemas.collection import Collection, ExperimentView, JobView
from hpcbench.schemas.request import JobRef
from hpcbench.schemas.states import JobState
from hpcbench.schemas.submission import Submission
from hpcbench.schemas.suite_folder import SuiteOnDisk

logger = logging.getLogger(__name__)


def held_evals(experiment: ExperimentView, latest: Mapping[JobRef, tuple[Submission, int]]) -> list[JobView]:
    """Return the evals that the queue holds back until their train job is over."""
    places = [(view, latest.get(view.ref)) for view in experiment.evals if view.held]
    return [
        view for view, place in places if view.record is None and place is not None and place[0].after_key is not None
    ]


def release_held_evals(suites: Sequence[SuiteOnDisk], collection: Collection, scheduler: Scheduler) -> tuple[int, int]:
    """Release and cancel held evals as their train records require; return how many of each."""
    latest = {suite.plan.suite: suite.latest() for suite in suites}
    release: list[str] = []
    cancel: list[str] = []
    for suite in collection.suites:
        for experiment in (*suite.experiments, *suite.others):
            if experiment.train is None:
                continue
            for view in held_evals(experiment, latest[suite.name]):  # only what was just seen held: Slurm reuses ids
                if view.scheduler_id is None or view.cluster != scheduler.name:
                    continue
                if experiment.train.state is JobState.COMPLETED and view.state is JobState.PENDING:
                    release.append(view.scheduler_id)
                elif view.state is JobState.BLOCKED:
                    cancel.append(view.scheduler_id)
    try:
        if release:
            scheduler.release(release)
        if cancel:
            scheduler.cancel(cancel)
    except SchedulerError as error:  # the next command tries again
        logger.warning("held evals were neither released nor cancelled: %s", error.message)
        return 0, 0
    return len(release), len(cancel)
