"""The supervisor: one small process per node that starts a job's launcher, outlives it and records how it ended.

It imports no torch, and sends logs to files, never through pipes. USR2 (time limit near) and TERM (cancelled or
preempted) make it ask the worker, through a file, to checkpoint and leave; the job's processes ignore those signals.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import subprocess
import time
import traceback
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

import hpcbench
from hpcbench.errors import HpcbenchError, WorkerError
from hpcbench.invocation import quoted
from hpcbench.job.attempts import earlier_attempts
from hpcbench.job.context import JobContext
from hpcbench.job.disk import is_full, link_scratch, release_reserve, take_reserve
from hpcbench.job.environment import QUERY_TIMEOUT_S, MachineQuestion, describe_environment, setup_failures
from hpcbench.job.input_check import find_changed_input
from hpcbench.job.job_claim import Claim, holds_claim
from hpcbench.job.launch import Launch, build_launch, node_caches
from hpcbench.job.other_python import OtherPython, environment_of, lend_hpcbench, open_environment
from hpcbench.job.outcome import Ending, conclude
from hpcbench.job.reaper import PATIENCE_S
from hpcbench.job.sampler import Sampler
from hpcbench.job.stop_reason import StopReason, StopRequest, find_stop_reason, is_cancelled
from hpcbench.job.worker_process import WorkerProcess, WorkerSlot
from hpcbench.processes.process_tree import descendants, kill_tree, signal_pid
from hpcbench.schemas.metrics import Metrics
from hpcbench.schemas.notes import Stop
from hpcbench.schemas.record import SETUP_FAILED, Attempt, Cause, Record, SampledMemory, write_record
from hpcbench.schemas.request import JobRequest
from hpcbench.schemas.states import JobState
from hpcbench.storage.clock import moment_text
from hpcbench.storage.json_files import read_json, write_json
from hpcbench.storage.paths import AttemptPaths

logger = logging.getLogger(__name__)

POLL_S = 0.2
TERM_GRACE_S = 22.0  # Slurm kills KillWait (30 s by default) after TERM; the record has to be written before
LATE_SIGNAL_S = 1.0
HURRIED_PATIENCE_S = 2.0
INTERNAL_ERROR = "internal_error"
USR2_MARGIN_S = 25.0
CANCEL_POLL_S = 2.0  # between looks for the note that cancels one of several jobs, which no signal tells
HEARTBEAT_S = 30.0  # between touches of the claim: a job counts as lost job_state.GRACE_S after the last one


@dataclass(slots=True, kw_only=True)
class Supervisor:
    """One attempt of one job on one node."""

    context: JobContext
    request: JobRequest
    claim: Claim
    checkpoint: Path | None = None
    stop: StopRequest = field(default_factory=StopRequest)
    slot: WorkerSlot = field(default_factory=WorkerSlot)
    """The process that this job shares with those before and after it in the same scheduler job."""
    started_at: datetime = field(default_factory=lambda: datetime.now(UTC))
    machine: MachineQuestion | None = None
    other: OtherPython | None = None
    """The Python of the worker, where it is not this one."""
    heard_at: float = field(default_factory=time.monotonic)
    """When the claim was touched last, by the monotonic clock."""
    looked_at: float = field(default_factory=time.monotonic)
    """When the note of a cancellation was looked for last, by the same clock."""
    cancelled_at: float | None = None
    """When it was found, of a job whose companions go on."""

    @property
    def attempt(self) -> AttemptPaths:
        """Where this attempt's files go."""
        return self.context.paths.attempt(self.claim.attempt)

    def run(self) -> Record | None:
        """Run the job to its end and write its record; return it, or None on nodes that write none.

        Raises:
            HpcbenchError: the claim was lost to another start, so nothing was written.
        """
        self.attempt.folder.mkdir(parents=True, exist_ok=True)
        if self.context.is_head:
            write_json(self.attempt.claim, read_json(self.context.paths.claim) or {})
            take_reserve(self.attempt.reserve)
        launch = self._build_launch()
        oom_before = oom_kill_count()
        sampled: SampledMemory | None = None
        try:
            if self.context.is_head and (cause := self._find_obstacle()) is not None:
                return self._finish(launch.argv, JobState.FAILED, cause)
            if self.context.is_head:
                link_scratch(self.context.paths, self.request, self.context.settings.scratch)
            launch = self._move_to_environment(launch)
            process = self._start(launch)
        except WorkerError as error:
            return self._refuse(launch, error.message, error.hint)
        except OSError as error:
            program = launch.argv[0]
            hint = "programs are looked for in PATH as the `setup` of the cluster profile leaves it"
            return self._refuse(launch, f"cannot be started: {program}: {error.strerror}", hint)
        launch = process.launch
        sampler = Sampler(process.child.pid)
        sampler.start()
        goes_on = False
        try:
            if self.context.is_head:
                # Now and not at the end: after TERM there is no time to ask nvidia-smi and git.
                self.machine = MachineQuestion(self.request.suite_file)
            killed = self._wait(process)
            goes_on = process.is_waiting
        finally:
            sampled = sampler.stop()
            if not goes_on:
                self.slot.clear(PATIENCE_S if self.stop.reason is None else HURRIED_PATIENCE_S)
        if not self.context.is_head:
            return None
        exit_code = 0 if goes_on else process.child.returncode
        reason, own = find_stop_reason(self.stop, self.context)
        if reason is None and self.cancelled_at is not None:
            reason = "terminate"
        ending = Ending(
            exit_code=exit_code,
            stop_reason=reason,
            may_requeue=own is None or own.may_requeue,
            killed_by_us=killed,
            oom_kills=oom_kill_count() - oom_before,
            disk_full=exit_code != 0 and is_full(self.attempt.folder),
        )
        state, cause, metrics = conclude(self.request, ending, job=self.context.paths, attempt=self.attempt)
        return self._finish(launch.argv, state, cause, metrics, sampled)

    def _find_obstacle(self) -> Cause | None:
        """Return why this job must not run although it could: in another environment, or on other files."""
        failed = setup_failures(os.environ)
        for line in failed:
            logger.warning("a setup line of the cluster profile failed: %s", line)
        if failed and self.context.settings.setup_failure == "stop":
            return Cause(
                type=SETUP_FAILED,
                message=f"a setup line of the cluster profile failed: {'; '.join(failed)}",
                hint="fix the line in the profile, or end it with `|| true` where it may fail; "
                "`setup_failure: warn` runs jobs all the same",
            )
        waiting = self.slot.take_waiting()
        compared = {} if waiting is None else waiting.inputs
        return find_changed_input(self.request, self.stop, compared=compared, beat=self._beat)

    def _move_to_environment(self, launch: Launch) -> Launch:
        """Return the launch in the Python that the request needs, where that is not this one.

        Raises:
            WorkerError: the profile names none, or it cannot run hpcbench's worker.
        """
        if (name := self.request.environment) is None:
            return launch
        self.other = other = open_environment(name, self.context.settings.environments, os.environ)
        moved = self._build_launch(other.python)
        lent = lend_hpcbench(node_caches(self.context, os.environ) / "python")
        return replace(moved, env=environment_of(other, moved.env, lent, given=self.request.env))

    def _build_launch(self, python: str | None = None) -> Launch:
        return build_launch(
            self.request,
            self.context,
            attempt=self.attempt,
            token=self.claim.token,
            environ=os.environ,
            checkpoint=self.checkpoint,
            python=python,
            waits=self.slot.more_follow,
        )

    def _refuse(self, launch: Launch, message: str, hint: str | None) -> Record:
        """Write the record of a job that cannot be started; off the head node raise, which ends the job."""
        if not self.context.is_head:
            raise HpcbenchError(message, hint=hint)
        return self._finish(launch.argv, JobState.FAILED, Cause(type="cannot_start", message=message, hint=hint))

    def record_own_failure(self, error: Exception) -> Record:
        """Write the record of an attempt that a mistake in hpcbench itself ended; on the head node."""
        last = traceback.extract_tb(error.__traceback__)[-1]
        place = f"{Path(last.filename).name}:{last.lineno}"
        look = quoted("logs", f"{self.request.suite}/{self.request.experiment}/{self.request.job}", "--path")
        cause = Cause(
            type=INTERNAL_ERROR,
            message=f"a mistake in hpcbench: {type(error).__name__}: {error} ({place})",
            hint=f"please report it, with Slurm's log of the job ({look}); retry runs the job again",
        )
        return self._finish((), JobState.FAILED, cause)

    def _start(self, launch: Launch) -> WorkerProcess:
        """Return the waiting worker, which has this job now, or a started one."""
        waits = self.slot.more_follow
        process = self.slot.take_waiting()
        if process is not None:
            try:
                process.hand_over(self.context.paths, self.attempt, waits=waits)
            except OSError as error:
                logger.warning("the waiting worker cannot be told of its next job: %s", error)
                self.slot.clear()
            else:
                return process
        self.slot.process = process = WorkerProcess.start(
            launch, self.attempt, token=self.claim.token, waits=waits, inputs=_inputs_that_stay_loaded(self.request)
        )
        return process

    def _wait(self, process: WorkerProcess) -> bool:
        """Wait for the end of this job's turn, passing on requests to stop; return whether it had to be killed."""
        child = process.child
        asked = False
        while True:
            self._beat()
            try:
                if child.wait(timeout=POLL_S) != 0:
                    self._await_late_signal()
                return False
            except subprocess.TimeoutExpired:
                pass
            if process.is_waiting:
                return False
            if (reason := self._why_stop()) is None:
                continue
            if not asked:
                asked = True
                self._ask_to_stop(process, reason)
            if self._grace_is_over():
                logger.warning("the worker did not leave in time and is killed")
                kill_tree(child)
                child.wait()
                return True

    def _beat(self) -> None:
        """Touch the claim, unless that was done a moment ago: the job is alive."""
        if time.monotonic() - self.heard_at > HEARTBEAT_S:
            self.heard_at = time.monotonic()
            with contextlib.suppress(OSError):
                os.utime(self.context.paths.claim)

    def _await_late_signal(self) -> None:
        deadline = time.monotonic() + LATE_SIGNAL_S  # Slurm signals a step's processes one after the other
        while self.stop.reason is None and time.monotonic() < deadline:
            time.sleep(0.05)

    def _why_stop(self) -> StopReason | None:
        """Return why the worker is to stop: a signal to the scheduler job, or the note that cancels this job alone."""
        if self.stop.reason is not None or not self.context.has_companions:
            return self.stop.reason
        now = time.monotonic()
        if self.cancelled_at is None and now - self.looked_at > CANCEL_POLL_S:
            self.looked_at = now
            self.cancelled_at = now if is_cancelled(self.context) else None
        return None if self.cancelled_at is None else "terminate"

    def _ask_to_stop(self, process: WorkerProcess, reason: StopReason) -> None:
        logger.info("asked to stop: %s", reason)
        if process.launch.is_program:
            for pid in descendants(process.child.pid):
                signal_pid(pid, signal.SIGTERM)
        elif self.context.is_head:
            try:
                Stop(reason=reason).write(self.attempt.stop)
            except OSError as error:
                logger.error("the worker cannot be asked to stop and will be killed: %s", error)

    def _grace_is_over(self) -> bool:
        now = time.monotonic()
        asked_at = self.cancelled_at if self.stop.term_at is None else self.stop.term_at
        if asked_at is not None and now - asked_at > TERM_GRACE_S:
            return True
        signal_lead_s = self.context.settings.signal_lead_s
        lead = max(signal_lead_s - USR2_MARGIN_S, signal_lead_s / 2)
        warned_at = self.stop.warned_at
        return warned_at is not None and self.stop.term_at is None and now - warned_at > lead

    def _finish(
        self,
        argv: tuple[str, ...],
        state: JobState,
        cause: Cause | None,
        metrics: Metrics | None = None,
        sampled: SampledMemory | None = None,
    ) -> Record:
        finished = datetime.now(UTC)
        machine = self.machine or MachineQuestion(self.request.suite_file)
        # After TERM every second counts.
        patience_s = QUERY_TIMEOUT_S if self.stop.reason is None else HURRIED_PATIENCE_S
        current = Attempt(
            number=self.claim.attempt,
            state=state,
            started_at=moment_text(self.started_at),
            finished_at=moment_text(finished),
            duration_s=(finished - self.started_at).total_seconds(),
            scheduler_id=self.context.scheduler_id,
            restart_count=self.context.restart_count,
            host=self.context.host,
            cause=cause,
            sampled=sampled,
        )
        earlier = earlier_attempts(
            self.context.paths, before=self.claim.attempt, scheduler_id=self.context.scheduler_id
        )
        record = Record(
            hpcbench_version=hpcbench.__version__,
            suite=self.request.suite,
            experiment=self.request.experiment,
            job=self.request.job,
            cmd=self.request.cmd,
            state=state,
            fingerprint=self.request.fingerprint,
            cause=cause,
            attempts=(*earlier, current),
            metrics=metrics,
            request=self.request.model_dump(mode="json"),
            argv=argv,
            environment=describe_environment(
                machine, patience_s=patience_s, worker=None if self.other is None else self.other.facts
            ),
            started_at=(earlier[0] if earlier else current).started_at,
            finished_at=current.finished_at,
        )
        logger.info("%s %s: %s", self.request.experiment, self.request.job, state)
        release_reserve(self.attempt.reserve)
        write_record(record, self.attempt.record)
        if not holds_claim(self.context.paths.claim, self.claim.token):
            raise HpcbenchError(
                f"{self.context.paths.folder}: another start has taken over; this record stays in its attempt"
            )
        write_record(record, self.context.paths.record)
        return record


def _inputs_that_stay_loaded(request: JobRequest) -> dict[str, str]:
    """Return the hash of the model: task files and data are read again in each turn."""
    model = None if request.args is None else request.args.model_id_or_path
    return {name: found for name, found in request.inputs.items() if name == model}


def oom_kill_count() -> int:
    """Return how often the kernel killed for memory in this process's cgroup, 0 where that cannot be read."""
    for pattern in ("/sys/fs/cgroup{path}/memory.events", "/sys/fs/cgroup/memory{path}/memory.oom_control"):
        try:
            cgroups = Path("/proc/self/cgroup").read_text(encoding="ascii").splitlines()
        except (OSError, UnicodeDecodeError):
            return 0
        for line in cgroups:
            _, controllers, path = line.split(":", 2)  # cgroups(7): version 2 names no controllers
            if controllers not in {"", "memory"}:
                continue
            try:
                text = Path(pattern.format(path=path)).read_text(encoding="ascii")
            except OSError:
                continue
            counts = [int(row.split()[1]) for row in text.splitlines() if row.startswith("oom_kill ")]
            if counts:
                return counts[0]
    return 0
