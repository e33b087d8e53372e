"""The jobs that a local runner has running: started, adopted from a dead runner, asked to stop, settled.

After a job has been settled no process of it is left.
"""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from hpcbench.errors import os_reason
from hpcbench.processes.process_tree import (
    ProcessIdentity,
    identify_process,
    is_alive,
    is_here,
    kill_processes,
    send_signal,
)
from hpcbench.processes.start import module_command, start_child
from hpcbench.scheduler.local.choose_starts import Machine, Start, num_threads
from hpcbench.scheduler.local.queue_files import ElementState, ElementStatus, LocalQueue, QueuedElement, has_result
from hpcbench.schemas import variables
from hpcbench.schemas.submission import Submission
from hpcbench.storage.clock import now_text
from hpcbench.storage.paths import SuitePaths

JobCommand = Callable[[Submission, int], list[str]]  # gives the command line of one element

SCRUBBED_PREFIXES = ("SLURM_", "SBATCH_")  # of an enclosing Slurm job: local jobs are none of its steps

logger = logging.getLogger(__name__)

STOP_GRACE_S = 30.0  # from TERM to KILL: the supervisor gives its worker 22 s to checkpoint, then writes the record
ABANDON_POLL_S = 0.1
LOST_REASON = "the local runner died while it ran, so its exit code is not known"


@dataclass(slots=True, kw_only=True)
class RunningJob:
    """One start of one job."""

    element: QueuedElement
    token: str
    process: ProcessIdentity | None = None
    handle: subprocess.Popen[bytes] | None = None  # None: a dead runner started it, so no exit code will be known
    gpus: tuple[str, ...] = ()
    cpus: int = 0
    deadline: float | None = None  # monotonic time at which it is killed; set once it was asked to stop
    is_cancelled: bool = False

    def has_exited(self) -> bool:
        """Return whether its first process has ended."""
        if self.handle is not None:
            return self.handle.poll() is not None
        return self.process is None or not is_here(self.process) or not is_alive(self.process)


@dataclass(slots=True, kw_only=True)
class JobTable:
    """All running jobs of this runner."""

    queue: LocalQueue
    machine: Machine
    job_command: JobCommand
    stop_grace_s: float = STOP_GRACE_S
    running: dict[str, RunningJob] = field(default_factory=dict)

    def free_gpus(self) -> list[str]:
        """Return the GPUs that no job holds."""
        taken = {gpu for job in self.running.values() for gpu in job.gpus}
        return [gpu for gpu in self.machine.gpus if gpu not in taken]

    def free_cpus(self) -> int:
        """Return the number of cores that no job holds; never below 0."""
        return max(0, self.machine.cpus - sum(job.cpus for job in self.running.values()))

    def adopt_all(self) -> None:
        """Take over what a dead runner left: its jobs got TERM when it died; they hold their slots until they end."""
        for element in self.queue.open_elements():
            state = self.queue.state(element.element_id)
            if state.status is not ElementStatus.RUNNING:
                continue
            token = state.token or secrets.token_hex(16)
            if state.process is None and kill_processes(token) == 0:
                self.queue.write_state(element.element_id, ElementState(num_starts=state.num_starts))
                continue
            job = RunningJob(element=element, token=token, process=state.process, gpus=state.gpus, cpus=state.cpus)
            self.running[element.element_id] = job
            self.ask_to_stop(job)

    def start(self, start: Start) -> None:
        """Start a job with its slots; one that cannot be started is refused."""
        element = self.queue.elements[start.element_id]
        token = secrets.token_hex(16)
        state = ElementState(
            status=ElementStatus.RUNNING,
            token=token,
            gpus=start.gpus,
            cpus=start.cpus,
            num_starts=self.queue.state(start.element_id).num_starts + 1,
            started_at=now_text(),
        )
        # Written before the process is there: should this process die now, the next runner finds the job by its token.
        self.queue.write_state(start.element_id, state)
        env = job_environment(
            element, start, machine=self.machine, environ=os.environ, token=token, num_starts=state.num_starts
        )
        try:
            _mark_start(element, state.num_starts)
            command = self.job_command(element.submission, element.index)
            # This process's folder may be gone by now, and an empty entry of PYTHONPATH puts it on Python's path.
            folder = element.suite_paths.folder
            # Its supervisor checkpoints and writes its record at TERM, also when this runner dies.
            handle = start_child(command, env=env, log=element.log, cwd=folder, on_parent_death=signal.SIGTERM)
        except (OSError, subprocess.SubprocessError) as error:
            self.queue.end(
                element,
                ElementStatus.REFUSED,
                reason=f"cannot be started: {os_reason(error) if isinstance(error, OSError) else error}",
            )
            return
        process = identify_process(handle.pid)
        self.running[start.element_id] = RunningJob(
            element=element, token=token, process=process, handle=handle, gpus=start.gpus, cpus=start.cpus
        )
        self.queue.write_state(start.element_id, state.model_copy(update={"process": process}))

    def ask_to_stop(self, job: RunningJob) -> None:
        """Send TERM to a job's supervisor, once; it checkpoints, writes its record and leaves."""
        if job.deadline is not None:
            return
        job.deadline = time.monotonic() + self.stop_grace_s
        if job.process is not None:
            send_signal(job.process, signal.SIGTERM)

    def abandon_all(self) -> None:
        """End all jobs and write nothing: the queue is another runner's by now."""
        for job in self.running.values():
            self.ask_to_stop(job)
        while any(not job.has_exited() and time.monotonic() < (job.deadline or 0) for job in self.running.values()):
            time.sleep(ABANDON_POLL_S)
        for job in self.running.values():
            kill_processes(job.token, job.process)
        self.running.clear()

    def settle_exited(self) -> bool:
        """Settle the jobs that have ended or outlived their grace; return whether there were any."""
        over = [
            job
            for job in self.running.values()
            if job.has_exited() or (job.deadline is not None and time.monotonic() > job.deadline)
        ]
        for job in over:
            self.settle(job)
        return bool(over)

    def settle(self, job: RunningJob) -> None:
        """Kill what is left of a job and write what became of it."""
        has_exited = job.has_exited()
        num_left = kill_processes(job.token, job.process)
        if num_left and has_exited:
            logger.info("%s: killed %s processes that it left behind", job.element.element_id, num_left)
        code: int | None = None
        if job.handle is not None:
            # It can only be stuck in the kernel (a dead network file system); its slots are given up all the same.
            with contextlib.suppress(subprocess.TimeoutExpired):
                code = job.handle.wait(timeout=self.stop_grace_s)
        del self.running[job.element.element_id]
        self._conclude(job, code)

    def _conclude(self, job: RunningJob, code: int | None) -> None:
        element = job.element
        if job.handle is None:
            if has_result(element):
                self.queue.end(element, ElementStatus.ENDED, code=0)
            elif job.is_cancelled:
                self.queue.end(element, ElementStatus.CANCELLED)
            else:
                self.queue.end(element, ElementStatus.LOST, reason=LOST_REASON)
            return
        was_asked = job.deadline is not None
        record = element.read_record() if was_asked else None
        # A supervisor may leave with 0 although it was interrupted; then its record has that state.
        ended_by_itself = has_result(element) or (code == 0 and record is None)
        if not was_asked or ended_by_itself:
            self.queue.end(element, ElementStatus.ENDED, code=code, reason=describe_exit(code))
        elif job.is_cancelled:
            self.queue.end(element, ElementStatus.CANCELLED, code=code)
        else:
            state = self.queue.state(element.element_id)
            pending = ElementState(num_starts=state.num_starts, reason="was interrupted")
            self.queue.write_state(element.element_id, pending)


def describe_exit(code: int | None) -> str:
    """Return an exit code as text, empty for 0."""
    if code is None:
        return "does not end, although it was killed"
    if code >= 0:
        return f"exit code {code}" if code else ""
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = f"signal {-code}"
    return f"killed by {name}" + (", perhaps because host memory ran out" if -code == signal.SIGKILL else "")


def _mark_start(element: QueuedElement, num_starts: int) -> None:
    """Drop the start mark that a batch script drops on a cluster."""
    mark = element.suite_paths.start_mark(element.entry.key, element.index)
    mark.parent.mkdir(parents=True, exist_ok=True)
    with mark.open("a", encoding="utf-8") as stream:
        stream.write(f"{element.element_id} {num_starts - 1} {socket.gethostname()}\n")


def supervisor_command(save_dir: Path) -> JobCommand:
    """Return what runs an element for real: its supervisor."""

    def build(submission: Submission, index: int) -> list[str]:
        file = SuitePaths(save_dir, submission.suite).submission(submission.key)
        return module_command("hpcbench.job", str(file), "--index", str(index))

    return build


def job_environment(
    element: QueuedElement, start: Start, *, machine: Machine, environ: Mapping[str, str], token: str, num_starts: int
) -> dict[str, str]:
    """Return the variables of one start of a job, marked by `token`; a user's OMP_NUM_THREADS is kept."""
    env = {name: value for name, value in environ.items() if not name.startswith(SCRUBBED_PREFIXES)}
    env.setdefault("OMP_NUM_THREADS", str(num_threads(element.submission.resources, machine)))
    if start.gpus and "CUDA_VISIBLE_DEVICES" not in environ:
        # The slots are nvidia-smi's, which counts in PCI order; CUDA's own order is by speed.
        env.setdefault("CUDA_DEVICE_ORDER", "PCI_BUS_ID")
    return env | {
        "CUDA_VISIBLE_DEVICES": ",".join(start.gpus),
        variables.LOCAL_ID: element.element_id,
        variables.LOCAL_RESTART_COUNT: str(num_starts - 1),
        variables.LOCAL_TOKEN: token,
    }
