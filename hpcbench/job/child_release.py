"""After a job: those that take its model are released when it completed, and cancelled when it failed finally.

Slurm itself judges only the first ten waiting elements of an array one by one (`correspond_after_task_cnt`), so the
dependency only holds them back and this lets them go. The next hpcbench command does what cannot be done here.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Sequence

from hpcbench.errors import SchedulerError
from hpcbench.job.context import JobContext
from hpcbench.job.stop_reason import is_cancelled
from hpcbench.scheduler.slurm.client import SlurmClient
from hpcbench.scheduler.slurm.own_job import ask_own_job, requeue_ended, requeue_running
from hpcbench.schemas.record import Record
from hpcbench.schemas.states import JobState
from hpcbench.schemas.submission import read_children_of
from hpcbench.storage.json_files import write_text

logger = logging.getLogger(__name__)


def own_children(context: JobContext, *, all_below: bool = False) -> list[str]:
    """Return the scheduler ids of the jobs that wait for exactly this one; with `all_below` also of those behind them.

    Along a chain of arrays the same index means the same chain of jobs.
    """
    found: list[str] = []
    keys = [context.submission.key]
    for key in keys:
        for submission in read_children_of(context.suite_paths, key):
            is_child = submission.after_key == key and context.index in submission.elements
            element_id = submission.element_id(context.index)
            if not is_child or submission.state != "submitted" or element_id is None or element_id in found:
                continue
            found.append(element_id)
            if all_below:
                keys.append(submission.key)
    return found


def settle_own_children(context: JobContext, state: JobState) -> None:
    """Release the jobs that wait for this one where it completed; where it did not, cancel all that hang on it."""
    if not context.on_slurm or not context.settings.release_evals:
        return
    try:
        children = own_children(context, all_below=state is not JobState.COMPLETED)
        if children:
            _settle(context, children, state)
    except (SchedulerError, OSError) as error:
        # The record is written; the next hpcbench command does the rest.
        logger.warning("the jobs that wait for this one were not settled: %s", error)


def _settle(context: JobContext, children: Sequence[str], state: JobState) -> None:
    if shutil.which("scontrol") is None:
        verb = "release" if state is JobState.COMPLETED else "cancel"
        leave_wishes(context, [f"{verb} {element_id}" for element_id in children])
        return
    if state is JobState.COMPLETED:
        logger.info("releasing: %s", children)
        SlurmClient().release(children)
    else:
        logger.info("cancelling: %s", children)
        SlurmClient().cancel(children)


def requeue(context: JobContext) -> bool:
    """Requeue this job after its time limit; return whether that was done, or left to the batch script."""
    if shutil.which("scontrol") is None:
        leave_wishes(context, [f"requeue {context.scheduler_id}"])
        return True
    own = ask_own_job(context.scheduler_id)
    if own is not None and own.is_at_limit:  # a plain requeue would revive a cancelled job; see stop_reason.judge_stop
        return requeue_ended(context.scheduler_id)
    return requeue_running(context.scheduler_id)


def stay_if_preempted(context: JobContext, record: Record) -> bool:
    """Have the batch script outside a container stay if this job is being preempted; return whether it was asked to."""
    is_stopped = record.cause is not None and record.cause.type == "interrupted"
    if not is_stopped or not context.on_slurm or shutil.which("scontrol") is not None or is_cancelled(context):
        return False
    leave_wishes(context, [f"stay {context.scheduler_id}"])  # the batch script can ask Slurm; a cancellation ends it
    return True


def leave_wishes(context: JobContext, lines: Sequence[str]) -> None:
    """Write down what the batch script does once this process has left; see `scheduler/slurm/script.py`."""
    path = context.suite_paths.wishes(context.submission.key, context.index)
    write_text(path, "".join(f"{line}\n" for line in lines))
    logger.info("left to the batch script: %s", "; ".join(lines))
