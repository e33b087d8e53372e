"""After the last job that takes a training's model: its checkpoints are reduced to what the profile's `keep` says.

It follows the records alone and asks no scheduler; what is not certain stays for `hpcbench submit` or `hpcbench clean`.
"""

from __future__ import annotations

import logging

from hpcbench.job.context import JobContext
from hpcbench.retention import find_removals, remove
from hpcbench.schemas.cluster_profile import Keep
from hpcbench.schemas.record import read_record
from hpcbench.schemas.request import EVAL_PREFIX
from hpcbench.schemas.suite_folder import PlannedExperiment, SuiteOnDisk, read_plan
from hpcbench.status.collect import collect_suites
from hpcbench.storage.paths import job_folders

logger = logging.getLogger(__name__)


def reduce_own_checkpoints(context: JobContext, keep: Keep) -> None:
    """Remove what `keep` leaves out of this job's experiment, and of the one whose model that takes.

    That is done once the training and all jobs that take its model are recorded. Of two that end together each writes
    its record before it reads the others', so one of them sees both.
    """
    plan = read_plan(context.suite_paths)
    if plan is None:
        return
    name = context.job.experiment
    own = [planned for planned in plan.experiments if planned.name == name]
    names = {name, *(planned.takes[0] for planned in own if planned.takes is not None)}
    # Of a thousand experiments only these files are read, and none of their submissions: the records are enough.
    read = tuple(p for p in plan.experiments if p.name in names or (p.takes is not None and p.takes[0] in names))
    names -= {planned.name for planned in read if _is_awaited(context, planned)}
    names -= {planned.takes[0] for planned in read if planned.takes is not None and _is_awaited(context, planned)}
    if not names:
        return
    suite = SuiteOnDisk(paths=context.suite_paths, plan=plan.model_copy(update={"experiments": read}), submissions=())
    patterns = [f"{plan.suite}/{name}" for name in sorted(names)]
    removals = find_removals(collect_suites([suite], lambda _cluster: None), patterns, keep)
    failed = remove(removals)
    for removal in removals:
        logger.info("keep: %s: removed %s", keep, removal.folder)
    for words in failed:
        logger.warning("not removed: %s", words)


def _is_awaited(context: JobContext, planned: PlannedExperiment) -> bool:
    """Return whether an earlier version of the suite had an eval of this experiment that may still run."""
    jobs = job_folders(context.suite_paths.folder / planned.name, EVAL_PREFIX)
    return any(
        job.folder.name not in planned.jobs and read_record(job.record) is None and not job.cancelled.exists()
        for job in jobs
    )
