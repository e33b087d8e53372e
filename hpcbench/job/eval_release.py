"""After a train job: its evals are released when it completed, and cancelled when it failed finally.

Slurm itself judges only the first ten waiting elements of an array one by one (`correspond_after_task_cnt`), so the
dependency only holds evals back and this lets them go. The next hpcbench command does what cannot be done here.
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
from hpcbench.schemas.submission import read_evals_of
from hpcbench.storage.json_files import write_text

logger = logging.getLogger(__name__)


def own_evals(context: JobContext) -> list[str]:
    """Return the scheduler ids of the evals that wait for exactly this job."""
    experiment = context.submission.elements[context.index].experiment
    return [
        element_id
        for submission in read_evals_of(context.suite_paths, context.submission.key)
        if submission.after_key == context.submission.key and submission.state == "submitted"
        for index, element in submission.elements.items()
        if element.experiment == experiment and (element_id := submission.element_id(index)) is not None
    ]


def settle_own_evals(context: JobContext, state: JobState) -> None:
    """Release or cancel the evals of a train job that has ended in `state`."""
    if not context.on_slurm or not context.settings.release_evals:
        return
    try:
        evals = own_evals(context)
        if evals:
            _settle(context, evals, state)
    except (SchedulerError, OSError) as error:
        # The record is written; the next hpcbench command does the rest.
        logger.warning("evals were not settled: %s", error)


def _settle(context: JobContext, evals: Sequence[str], state: JobState) -> None:
    if shutil.which("scontrol") is None:
        verb = "release" if state is JobState.COMPLETED else "cancel"
        leave_wishes(context, [f"{verb} {element_id}" for element_id in evals])
        return
    if state is JobState.COMPLETED:
        logger.info("releasing evals: %s", evals)
        SlurmClient().release(evals)
    else:
        logger.info("cancelling evals: %s", evals)
        SlurmClient().cancel(evals)


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
