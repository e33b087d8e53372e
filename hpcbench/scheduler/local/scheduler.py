"""Local mode: the second implementation of `Scheduler`, a queue on this machine with GPU and CPU slots.

It starts no job: the runner does. Files answer every query, so it needs no runner, and ended jobs are always known.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from hpcbench.errors import SchedulerError, SubmitError, os_reason
from hpcbench.processes.process_tree import ProcessIdentity, is_alive, is_here
from hpcbench.scheduler.local.queue_files import (
    Dependency,
    ElementState,
    ElementStatus,
    LocalQueue,
    QueuedElement,
    add_entry,
    asked_to_cancel,
    has_result,
    read_cancels,
    read_entries,
    request_cancel,
)
from hpcbench.scheduler.local.runner_claim import live_runner
from hpcbench.scheduler.local.running_jobs import LOST_REASON, JobCommand, supervisor_command
from hpcbench.scheduler.protocol import Answer, Place, SchedulerJob
from hpcbench.schemas.cluster_profile import LOCAL
from hpcbench.schemas.request import Resources
from hpcbench.schemas.states import JobState
from hpcbench.schemas.submission import JobSettings, Submission
from hpcbench.storage.paths import LocalPaths

UNLIMITED = 1_000_000
NO_RUNNER = "no local runner; run `hpcbench submit` again to continue"


class LocalScheduler:
    """The queue of one save directory on this machine."""

    def __init__(
        self,
        save_dir: Path,
        *,
        job_command: JobCommand | None = None,
        environments: Mapping[str, str] | None = None,
    ) -> None:
        self._save_dir = save_dir.absolute()
        self._environments = dict(environments or {})
        self._paths = LocalPaths(self._save_dir)
        self._job_command = job_command or supervisor_command(self._save_dir)

    @property
    def name(self) -> str:
        """Always `local`."""
        return LOCAL

    @property
    def queue_name(self) -> str:
        """The queue of this save directory."""
        return self.name

    @property
    def cluster_name(self) -> str | None:
        """None: the queue is the save directory's own."""
        return None

    @property
    def runs_here(self) -> bool:
        """True: the runner of this machine starts the jobs."""
        return True

    @property
    def poll_s(self) -> float | None:
        """None: the queue is made of files."""
        return None

    def max_array_size(self) -> int:
        """Return more than any suite has jobs: an array here is an entry of the queue, without a limit."""
        return UNLIMITED

    def room_left(self) -> int | None:
        """Return None: the queue takes everything."""
        return None

    def job_settings(self, resources: Resources) -> JobSettings:
        """Return the defaults, and this machine's environments: the local queue has no profile otherwise."""
        del resources
        return JobSettings(environments=self._environments)

    def render(self, submission: Submission, after_id: str | None) -> str:
        """Return the commands that would run, as a shell would take them."""
        resources = submission.resources
        per_job = f"{resources.gpu} GPU slots" if resources.gpu else f"{resources.cpus or resources.ddp} CPU slots"
        lines = [f"# {submission.key}: local queue {self._paths.queue}, {per_job} per job"]
        for index, element in sorted(submission.elements.items()):
            after = "" if after_id is None else f", after index {index} of {after_id} has completed"
            names = ", then ".join(job.job for job in element.jobs)
            lines += [f"# index {index}: {submission.suite}/{element.experiment} {names}{after}"]
            devices = f"'<{resources.gpu} free>'" if resources.gpu else "''"
            lines += [f"CUDA_VISIBLE_DEVICES={devices} {shlex.join(self._job_command(submission, index))}"]
        return "\n".join(lines) + "\n"

    def describe_environment(self, texts: Sequence[str]) -> list[str]:
        """Return nothing: jobs here get the whole environment, and no variable asks for resources."""
        del texts
        return []

    def submit(self, submission: Submission, after_id: str | None) -> str:
        """Queue a submission; the same key is queued once. See `Scheduler.submit`."""
        try:
            return add_entry(self._paths, submission, after_id).id
        except OSError as error:
            raise SubmitError(f"{self._paths.queue}: cannot be written: {os_reason(error)}") from error

    def find(self, keys: Sequence[str]) -> Mapping[str, str]:
        """Return the ids of queued submissions by key."""
        try:
            entries = read_entries(self._paths)
        except OSError as error:
            raise SchedulerError(f"{self._paths.queue}: cannot be read: {os_reason(error)}") from error
        found = {entry.key: entry.id for entry in entries}
        return {key: found[key] for key in keys if key in found}

    def query(self, submissions: Sequence[Submission]) -> Answer:
        """Query all elements of the submissions in the state files."""
        queue = LocalQueue(self._save_dir)
        try:
            # The runner before the states: one that ends in between has written its last states by then.
            runner = live_runner(self._paths)
            queue.reload()
            cancels = read_cancels(self._paths)
            # Else a runner that has just started would make its first job look lost.
            runner = runner or live_runner(self._paths)
        except OSError as error:
            raise SchedulerError(f"{self._paths.folder}: cannot be read: {os_reason(error)}") from error
        wanted = {s.scheduler_id: s.key for s in submissions if s.scheduler_id is not None}
        jobs: dict[Place, SchedulerJob] = {}
        for element in queue.elements.values():
            if wanted.get(element.entry.id) == element.entry.key:
                is_cancelled = any(asked_to_cancel(element, cancels))
                place = (element.entry.key, element.index)
                jobs[place] = _describe(queue, element, runner, is_cancelled=is_cancelled)
        return Answer(jobs=jobs, history_known=True)

    def release(self, element_ids: Iterable[str]) -> None:
        """Do nothing: the runner itself judges every dependency one by one."""

    def cancel(self, element_ids: Sequence[str]) -> None:
        """Leave requests for the runner; without one they count at once, and the next runner keeps to them."""
        for element_id in element_ids:
            request_cancel(self._paths, element_id)


def _describe(
    queue: LocalQueue, element: QueuedElement, runner: ProcessIdentity | None, *, is_cancelled: bool
) -> SchedulerJob:
    state = queue.state(element.element_id)
    match state.status:
        case ElementStatus.PENDING:
            return _describe_pending(queue, element, runner, is_cancelled=is_cancelled)
        case ElementStatus.RUNNING:
            return _describe_running(element, state, runner, is_cancelled=is_cancelled)
        case ElementStatus.ENDED if state.exit_code == 0:
            return _told(JobState.COMPLETED, state)
        case ElementStatus.ENDED:
            return _told(JobState.FAILED, state, f"{state.reason}; see {element.log}")
        case ElementStatus.LOST:
            return _told(JobState.LOST, state)
        case ElementStatus.REFUSED:
            return _told(JobState.FAILED, state)
        case ElementStatus.BLOCKED:
            return _told(JobState.BLOCKED, state)
        case ElementStatus.CANCELLED:
            return _told(JobState.CANCELLED, state)


def _describe_pending(
    queue: LocalQueue, element: QueuedElement, runner: ProcessIdentity | None, *, is_cancelled: bool
) -> SchedulerJob:
    state = queue.state(element.element_id)
    if is_cancelled:
        return _told(JobState.CANCELLED, state, "cancelled" if state.num_starts else "cancelled before it started")
    dependency = queue.check_dependency(element)
    if dependency is Dependency.BROKEN:
        return _told(JobState.BLOCKED, state, f"{queue.parent_name(element)} did not complete")
    is_held = dependency is Dependency.WAITING
    reason = f"waits for {queue.parent_name(element)}" if is_held else "waits for free slots"
    return SchedulerJob(
        state=JobState.PENDING,
        raw_state="PENDING",
        reason=NO_RUNNER if runner is None else reason,
        held_by_dependency=is_held,
    )


def _describe_running(
    element: QueuedElement, state: ElementState, runner: ProcessIdentity | None, *, is_cancelled: bool
) -> SchedulerJob:
    """Return the state of a job whose state file has `running`, which a dead runner may have left behind."""
    process = state.process
    if runner is not None:
        return _told(JobState.RUNNING, state, "is being cancelled" if is_cancelled else "")
    if process is not None and is_here(process) and is_alive(process):
        return _told(JobState.RUNNING, state, "its runner died; it has been told to stop")
    if has_result(element):
        return _told(JobState.COMPLETED, state)
    if is_cancelled:
        return _told(JobState.CANCELLED, state, "cancelled by hpcbench")
    return _told(JobState.LOST, state, LOST_REASON)


def _told(answer: JobState, state: ElementState, reason: str | None = None) -> SchedulerJob:
    code = state.exit_code
    return SchedulerJob(
        state=answer,
        raw_state=state.status.upper(),
        reason=state.reason if reason is None else reason,
        # As Slurm writes it: exit code and signal.
        exit_code=None if code is None else f"{max(code, 0)}:{max(-code, 0)}",
    )
