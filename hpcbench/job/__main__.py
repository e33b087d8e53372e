"""Entry point of every job: `python -m hpcbench.job SUBMISSION_FILE [--index N]`.

Evals that share a scheduler job run in it one after the other. Exit code 0 when all is completed, 1 when it is not, 74
when it could not write what became of it.
"""

from __future__ import annotations

import signal

# USR2 ends a process without a handler (signal(7)); until handlers are set it must not end the job, and TERM follows.
signal.signal(signal.SIGUSR2, signal.SIG_IGN)

# ruff: noqa: E402
import argparse
import contextlib
import logging
import os
import shutil
import sys
import time
from pathlib import Path

from hpcbench.errors import HpcbenchError, os_reason
from hpcbench.invocation import repeat_save_dir
from hpcbench.job.attempts import earlier_attempts, give_up
from hpcbench.job.checkpoint_retention import reduce_own_checkpoints
from hpcbench.job.child_release import requeue, settle_own_children, stay_if_preempted
from hpcbench.job.context import JobContext, read_context
from hpcbench.job.hub_push import push_weights, wants_push
from hpcbench.job.job_claim import Claim, take_claim, wait_for_head_claim
from hpcbench.job.launch import node_caches
from hpcbench.job.parent_check import check_parent, note_refusal
from hpcbench.job.stop_reason import StopRequest, install_handlers, is_cancelled
from hpcbench.job.supervisor import Supervisor
from hpcbench.job.worker_process import WorkerSlot
from hpcbench.processes.standard_streams import open_streams
from hpcbench.processes.start import die_with_parent
from hpcbench.retention import find_model
from hpcbench.scheduler.slurm.own_job import ask_own_job
from hpcbench.schemas.record import Record, may_come_back, read_record
from hpcbench.schemas.request import JobRequest, read_request
from hpcbench.schemas.states import EXIT_START_ME_AGAIN, FINISHED_WELL, JobState

logger = logging.getLogger("hpcbench.job")

EXIT_COMPLETED = 0
EXIT_NOT_COMPLETED = 1
EXIT_NOT_WRITTEN = os.EX_IOERR
PREEMPTION_POLL_S = 15.0
MAX_SILENCES = 5


def main(arguments: list[str] | None = None) -> int:
    """Run the jobs of one element and return the process's exit code."""
    parser = argparse.ArgumentParser(prog="python -m hpcbench.job", description="run one element of a submission")
    parser.add_argument("submission", type=Path)
    parser.add_argument("--index", type=int, default=None)
    options = parser.parse_args(arguments)
    open_streams()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s", stream=sys.stderr)
    stop = StopRequest()
    install_handlers(stop)
    try:
        context = read_context(options.submission.absolute(), options.index)
        repeat_save_dir(context.suite_paths.save_dir)  # records are read from anywhere
        if context.on_slurm:
            # Where Slurm uses no cgroups, a supervisor would outlive its slurmstepd and go on with a job that is over.
            die_with_parent(os.getppid())
            # It came along from the login node; here it would have scontrol ask slurmdbd, which nodes may not reach.
            os.environ.pop("SLURM_CLUSTERS", None)
        return run_element(context, stop)
    except HpcbenchError as error:
        logger.error("%s", error)
        return EXIT_NOT_COMPLETED
    except OSError as error:
        # Slurm's own log is the only place left for this.
        logger.error("no record could be written: %s", os_reason(error))
        return EXIT_NOT_WRITTEN


def run_element(context: JobContext, stop: StopRequest) -> int:
    """Run the jobs of this scheduler job, mostly one, in turn; return the process's exit code.

    Raises:
        HpcbenchError: this start has nothing to run, or not any more; those whose turn had not come stay planned.
    """
    for folder in (context.suite_paths.slurm_logs, context.suite_paths.start_marks(context.submission.key)):
        with contextlib.suppress(OSError):
            # Slurm starts no job whose log's folder was removed: those that still wait would all fail.
            folder.mkdir(parents=True, exist_ok=True)
    if context.submission.state == "abandoned":
        logger.warning("%s was given up by a later submit, which made another; leaving", context.submission.key)
        return EXIT_NOT_COMPLETED
    turns, slot, codes = context.in_turn(), WorkerSlot(), []
    try:
        for number, turn in enumerate(turns):
            code = find_earlier_end(turn)
            if code is None:
                slot.more_follow = any(find_earlier_end(later) is None for later in turns[number + 1 :])
                code = run_job(turn, stop, slot)
            codes.append(code)
            if stop.reason is not None and code != EXIT_COMPLETED:
                break
    finally:
        if slot.process is not None:
            slot.clear()
            shutil.rmtree(node_caches(context, os.environ), ignore_errors=True)
    return max(codes, default=EXIT_NOT_COMPLETED)


def find_earlier_end(context: JobContext) -> int | None:
    """Return the exit code of one of several jobs that needs no turn: it is over since an earlier start, or cancelled.

    A job that is alone in its element decides by itself.
    """
    if not context.has_companions:
        return None
    record = read_record(context.paths.record)
    if record is not None and record.fingerprint == context.job.fingerprint:
        is_mine = bool(record.attempts) and record.attempts[-1].scheduler_id == context.scheduler_id
        if record.state in FINISHED_WELL or (is_mine and not may_come_back(record)):
            return EXIT_COMPLETED if record.state is JobState.COMPLETED else EXIT_NOT_COMPLETED
    return EXIT_COMPLETED if is_cancelled(context) else None


def run_job(context: JobContext, stop: StopRequest, slot: WorkerSlot) -> int:
    """Claim, check, run, record, and settle what depends on this job."""
    request = read_request(context.paths.request)
    if request.fingerprint != context.job.fingerprint:
        logger.warning("%s was changed after this job was submitted; leaving", context.paths.request)
        return EXIT_NOT_COMPLETED
    if context.on_slurm and is_cancelled(context):
        # The note came before scancel, which then failed.
        logger.warning("%s was cancelled; leaving", context.paths.folder)
        return EXIT_NOT_COMPLETED
    checkpoint: Path | None = None
    if request.train_folder is not None:
        parent, reason = check_parent(request)
        if parent is not None and request.program:
            checkpoint, reason = find_model(request, parent)
        if reason:
            note_refusal(context.suite_paths, context.submission, context.index, reason)
            raise HpcbenchError(f"not run: {reason}")
    claim = take_claim(context) if context.is_head else wait_for_head_claim(context)
    if claim is None:
        record = read_record(context.paths.record)
        return EXIT_COMPLETED if record is not None and record.state is JobState.COMPLETED else EXIT_NOT_COMPLETED
    if context.on_slurm and num_starts(context, claim) >= request.max_attempts:
        return give_up_job(context, request, claim)
    return run_attempt(context, request, claim, checkpoint=checkpoint, stop=stop, slot=slot)


def num_starts(context: JobContext, claim: Claim) -> int:
    """Return how often this scheduler job has started this job before the claim."""
    if not context.has_companions:
        return context.restart_count
    # The restarts may have fallen into another job's turn.
    earlier = earlier_attempts(context.paths, before=claim.attempt, scheduler_id=context.scheduler_id)
    return sum(attempt.scheduler_id == context.scheduler_id for attempt in earlier)


def run_attempt(
    context: JobContext,
    request: JobRequest,
    claim: Claim,
    *,
    checkpoint: Path | None,
    stop: StopRequest,
    slot: WorkerSlot | None = None,
) -> int:
    """Run a claimed job once, and do what its end asks for; return the process's exit code."""
    supervisor = Supervisor(
        context=context, request=request, claim=claim, checkpoint=checkpoint, stop=stop, slot=slot or WorkerSlot()
    )
    try:
        record = supervisor.run()
    except (HpcbenchError, OSError):
        raise
    except Exception as error:
        if not context.is_head:
            raise
        # A job without a record would leave nothing but a riddle.
        logger.exception("hpcbench itself failed")
        record = supervisor.record_own_failure(error)
    if supervisor.slot.process is None:
        shutil.rmtree(node_caches(context, os.environ), ignore_errors=True)
    if record is None:
        return EXIT_COMPLETED
    if context.on_slurm and record.state in {JobState.PREEMPTED, JobState.CANCELLED} and not is_cancelled(context):
        wait_for_preemption(context)
    if record.state is JobState.PREEMPTED:
        return EXIT_NOT_COMPLETED
    if requeue_after_timeout(context, request, record) or stay_if_preempted(context, record):
        return EXIT_NOT_COMPLETED
    if record.state is JobState.COMPLETED or record.state in _FINAL:
        settle_own_children(context, record.state)
    if wants_push(request, record):
        push_weights(request, record, context=context, claim=claim, stop=stop)
    reduce_checkpoints(context, record)
    return EXIT_COMPLETED if record.state is JobState.COMPLETED else EXIT_NOT_COMPLETED


def reduce_checkpoints(context: JobContext, record: Record) -> None:
    """Remove the checkpoints that the profile's `keep` leaves out, once nothing needs them any more."""
    keep = context.settings.keep
    if keep is None or record.state not in FINISHED_WELL:
        return
    try:
        reduce_own_checkpoints(context, keep)
    except OSError as error:
        logger.warning("keep: %s: checkpoints were left alone: %s", keep, error)


def give_up_job(context: JobContext, request: JobRequest, claim: Claim) -> int:
    """Leave a last record instead of another attempt: Slurm requeues after preemptions and node failures for ever."""
    if context.is_head:
        record = give_up(context, request, before=claim.attempt)
        logger.warning("%s %s: %s, no attempts left", request.experiment, request.job, record.state)
        settle_own_children(context, record.state)
    return EXIT_NOT_COMPLETED


# Ends that no requeue follows; a preempted or timed-out job may come back and still needs those that wait for it.
_FINAL = frozenset({JobState.FAILED, JobState.OUT_OF_MEMORY, JobState.HOST_OUT_OF_MEMORY})


def wait_for_preemption(context: JobContext) -> None:
    """Stay until Slurm ends this job; the record is written, so waiting is free."""
    # One that leaves within its grace time has failed to Slurm and is not requeued.
    silences = 0  # a controller that does not answer has many jobs to preempt
    while shutil.which("scontrol") is not None and silences < MAX_SILENCES:
        own = ask_own_job(context.scheduler_id)
        if own is not None and not own.is_being_preempted:
            return
        silences = silences + 1 if own is None else 0
        time.sleep(PREEMPTION_POLL_S)


def requeue_after_timeout(context: JobContext, request: JobRequest, record: Record) -> bool:
    """Put a job that ran into its time limit back into the queue while it has attempts left."""
    if record.state is not JobState.TIMEOUT or not context.on_slurm:
        return False
    if request.program and (record.cause is None or record.cause.exit_code != EXIT_START_ME_AGAIN):
        # Started anew it would run into the same limit.
        return False
    # Those of an earlier submission do not count: a person's retry starts anew.
    if context.restart_count + 1 >= request.max_attempts:
        logger.warning("all %s attempts are used up", request.max_attempts)
        return False
    # It may have been cancelled while the record was written.
    if is_cancelled(context):
        logger.warning("cancelled meanwhile, so it is not put back into the queue")
        return False
    return requeue(context)


if __name__ == "__main__":
    sys.exit(main())
