"""After an experiment's last job: its checkpoints are reduced to what the profile's `keep` says.

It follows the records alone and asks no scheduler; what is not certain stays for `hpcbench submit` or `hpcbench clean`.
"""

from __future__ import annotations

import logging
from collections.abc import Collection

from hpcbench.job.context import JobContext
from hpcbench.retention import find_removals, remove
from hpcbench.schemas.cluster_profile import Keep
from hpcbench.schemas.record import read_record
from hpcbench.schemas.request import EVAL_PREFIX
from hpcbench.schemas.suite_folder import SuiteOnDisk, read_plan
from hpcbench.status.collect import collect_suites
from hpcbench.storage.paths import job_folders

logger = logging.getLogger(__name__)


def reduce_own_checkpoints(context: JobContext, keep: Keep) -> None:
    """Remove what `keep` leaves out of this job's experiment, if its train job and all its evals are recorded.

    Of two evals that end together each writes its record before it reads the others', so one of them sees both.
    """
    plan = read_plan(context.suite_paths)
    if plan is None:
        return
    name = context.submission.elements[context.index].experiment
    # Of a thousand experiments only this one's files are read, and none of its submissions: the records are enough.
    own = tuple(planned for planned in plan.experiments if planned.name == name)
    if _is_awaited(context, {job for planned in own for job in planned.jobs}):
        return
    suite = SuiteOnDisk(paths=context.suite_paths, plan=plan.model_copy(update={"experiments": own}), submissions=())
    removals = find_removals(collect_suites([suite], lambda _cluster: None), (), keep)
    failed = remove(removals)
    for removal in removals:
        logger.info("keep: %s: removed %s", keep, removal.folder)
    for words in failed:
        logger.warning("not removed: %s", words)


def _is_awaited(context: JobContext, planned: Collection[str]) -> bool:
    jobs = job_folders(context.paths.folder.parent, EVAL_PREFIX)
    return any(
        job.folder.name not in planned and read_record(job.record) is None and not job.cancelled.exists()
        for job in jobs
    )
