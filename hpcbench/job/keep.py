"""After an experiment's last job: its checkpoints are reduced to what the profile's `keep` says.

In: the context of a job that has just left its record. Out: fewer folders. It goes by records alone and asks no
scheduler; whatever it cannot be sure of stays, for the next `hpcbench submit` or `hpcbench clean`.
"""

from __future__ import annotations

import logging
from dataclasses import replace

from hpcbench.clean import Keep, find_removals, remove
from hpcbench.collect import collect_suites, read_suite
from hpcbench.job.context import JobContext

logger = logging.getLogger(__name__)


def reduce_own_checkpoints(context: JobContext, keep: Keep) -> None:
    """Remove what `keep` leaves out of this job's experiment, if its train job and all its evals are recorded.

    Of two evals that end together each writes its record before it looks, so one of them sees both.
    """
    suite = read_suite(context.suite_paths)
    if suite is None:
        return
    name = context.submission.elements[context.index].experiment
    own = tuple(planned for planned in suite.plan.experiments if planned.name == name)
    # Of a thousand experiments only this one's files are read.
    submissions = tuple(
        submission.model_copy(update={"elements": elements})
        for submission in suite.submissions
        if (elements := {i: e for i, e in submission.elements.items() if e.experiment == name})
    )
    suite = replace(suite, plan=suite.plan.model_copy(update={"experiments": own}), submissions=submissions)
    removals = find_removals(collect_suites([suite], lambda _cluster: None), (), keep)
    failed = remove(removals)
    for removal in removals:
        logger.info("keep: %s: removed %s", keep, removal.folder)
    for words in failed:
        logger.warning("not removed: %s", words)
