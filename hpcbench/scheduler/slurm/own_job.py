"""Slurm's answer about the very job that asks: does it still run, is it being preempted, is its time limit reached?

Signals leave it open: cancellation, preemption and time limit come as TERM, preemption and time limit as USR2.
"""

from __future__ import annotations

import logging
import shutil
import time
from dataclasses import dataclass

from hpcbench.errors import SchedulerError
from hpcbench.scheduler.slurm.commands import TRANSIENT, run_command

logger = logging.getLogger(__name__)

ASK_TIMEOUT_S = 5
REQUEUE_WAITS_S = (2.0, 5.0, 10.0, 20.0)
NEVER = frozenset({"None", "N/A", "Unknown"})
# Slurm's words for a job that it has not begun to end; it is SIGNALING just when a notice comes.
RUNNING = frozenset({"RUNNING", "SIGNALING", "RESIZING", "SUSPENDED", "STOPPED"})
# What `OwnJob.is_being_preempted` is to `grep -E`: a batch script has no Python.
BEING_PREEMPTED = "JobState=(RUNNING|SIGNALING) .* PreemptTime=[0-9]"
AT_LIMIT = "TimeLimit"  # Slurm's reason for having ended a job; its state is COMPLETING, as that of a cancelled one


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnJob:
    """A job as `scontrol show job` shows it to itself."""

    is_running: bool  # Slurm has not begun to end it
    is_being_preempted: bool = False  # it is in the grace time of its preemption
    is_at_limit: bool = False  # Slurm is ending it because its time is over
    num_requeues: int = 0  # by Slurm: one more than this start knows of where it is about to requeue the job again
    may_requeue: bool = True  # it was not submitted with --no-requeue, and the site does not forbid it


def parse_own_job(text: str) -> OwnJob | None:
    """Return what one line of `scontrol show job -o` says, or None when it shows no job (pure)."""
    words: dict[str, str] = {}
    for name, _, value in (word.partition("=") for word in text.split() if "=" in word):
        # Paths and comments, which may hold anything, come last.
        words.setdefault(name, value)
    if "JobState" not in words:
        return None
    is_running = words["JobState"] in RUNNING
    restarts = words.get("Restarts", "")
    return OwnJob(
        is_running=is_running,
        is_being_preempted=is_running and words.get("PreemptTime", "None") not in NEVER,
        is_at_limit=not is_running and (words["JobState"] == "TIMEOUT" or words.get("Reason") == AT_LIMIT),
        num_requeues=int(restarts) if restarts.isdecimal() else 0,
        may_requeue=words.get("Requeue") != "0",
    )


def ask_own_job(element_id: str) -> OwnJob | None:
    """Return Slurm's answer, or None; briefly, since after TERM no more than KillWait may be left for the record."""
    if shutil.which("scontrol") is None:
        return None
    try:
        return parse_own_job(run_command(["scontrol", "show", "job", "-o", element_id], timeout_s=ASK_TIMEOUT_S))
    except SchedulerError as error:
        logger.info("%s: not known what Slurm does with it: %s", element_id, error.message)
        return None


def requeue_running(element_id: str) -> bool:
    """Put a job back into the queue if it still runs; return whether Slurm took the request."""
    for wait_s in REQUEUE_WAITS_S:
        try:
            # `scontrol requeue` sends TERM within milliseconds (22.05), so the record is written before.
            # `Incomplete` has slurmctld check that the job runs: no cancellation comes in between, a retry is safe.
            run_command(["scontrol", "requeue", "Incomplete", element_id])
        except SchedulerError as error:
            logger.warning("%s was not requeued: %s", element_id, error.message)
            if not TRANSIENT.search(error.message):
                return False
            time.sleep(wait_s)
        else:
            return True
    return False


def requeue_ended(element_id: str) -> bool:
    """Put a job back into the queue whatever its state is, a cancelled one too; return whether Slurm did."""
    try:
        run_command(["scontrol", "requeue", element_id])
    except SchedulerError as error:
        logger.warning("%s was not requeued: %s", element_id, error.message)
        return False
    return True
