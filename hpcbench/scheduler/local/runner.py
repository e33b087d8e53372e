"""The runner of the local queue: starts jobs while slots are free, and ends when nothing is left to do.

One runner per save directory; a second call follows the first. INT or TERM stop it: jobs get TERM and time to
checkpoint, unfinished ones go back to the queue, no process is left. Run as a module, it survives a logout.
"""

from __future__ import annotations

import argparse
import logging
import os
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import NoReturn

from hpcbench.errors import EXIT_INTERRUPTED, HpcbenchError, SchedulerError
from hpcbench.invocation import quoted
from hpcbench.processes.process_tree import ProcessIdentity, is_here
from hpcbench.processes.standard_streams import open_streams
from hpcbench.processes.start import module_command
from hpcbench.scheduler.local.choose_starts import Machine, Waiting, choose_starts, need_of, refuse_job
from hpcbench.scheduler.local.display import LineDisplay, LocalDisplay, open_display
from hpcbench.scheduler.local.machine import read_machine
from hpcbench.scheduler.local.queue_files import (
    OPEN,
    Dependency,
    ElementState,
    ElementStatus,
    LocalQueue,
    QueuedElement,
    asked_to_cancel,
    read_cancels,
)
from hpcbench.scheduler.local.runner_claim import (
    HEARTBEAT_S,
    SILENCE_S,
    last_runner,
    leave_claim,
    live_runner,
    note_stopped,
    renew_claim,
    take_claim,
    was_stopped,
)
from hpcbench.scheduler.local.running_jobs import STOP_GRACE_S, JobCommand, JobTable, supervisor_command
from hpcbench.storage.paths import LocalPaths

logger = logging.getLogger(__name__)

TICK_S = 0.1
SCAN_S = 1.0
FOLLOW_S = 0.5
FOLLOW_FAR_S = 2.0  # of another machine's runner only the age of its claim is known, and asking that makes a file
DETACH_TIMEOUT_S = 15.0
EXIT_DONE = 0
EXIT_FAILED = 1
HOW_TO_CONTINUE = "run the same `hpcbench submit` again to continue"


@dataclass(slots=True)
class StopSignals:
    """How often this process was asked to stop."""

    count: int = 0

    def note(self, number: int, _frame: FrameType | None = None) -> None:
        """Count one signal; nothing else is safe in a handler."""
        del number
        self.count += 1


@contextmanager
def catch_signals() -> Iterator[StopSignals]:
    """Count INT, TERM and HUP instead of dying of them; what was ignored (nohup) stays ignored."""
    signals = StopSignals()
    # Python sets signal handlers in the main thread only (signal.signal raises ValueError elsewhere).
    if threading.current_thread() is not threading.main_thread():
        yield signals
        return
    before = {}
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:
            before[number] = signal.signal(number, signals.note)
    try:
        yield signals
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@dataclass(slots=True, kw_only=True)
class LocalRunner:
    """Runs the queue, one look at a time; the caller holds the claim."""

    jobs: JobTable
    _waiting_since: dict[str, float] = field(default_factory=dict)
    _overtaken: Counter[str] = field(default_factory=Counter)
    _scanned_at: float = float("-inf")

    @property
    def queue(self) -> LocalQueue:
        """The queue with its states, always up to date: only the runner writes them."""
        return self.jobs.queue

    def take_over(self) -> None:
        """Read the queue and what a dead runner left running."""
        self.queue.reload()
        self.jobs.adopt_all()

    def step(self) -> None:
        """Settle what has ended, act on requests, start what fits."""
        changed = self.jobs.settle_exited()
        now = time.monotonic()
        if changed or now - self._scanned_at >= SCAN_S:
            self._scanned_at = now
            # In this order: whatever is asked to be cancelled was queued before.
            cancels = read_cancels(self.queue.paths)
            self.queue.scan_entries()
            self._act_on_cancels(cancels)
            self._drop_hopeless()
            self._start_fitting(now)

    def is_idle(self) -> bool:
        """Return whether nothing is left to do."""
        return not self.jobs.running and not self.queue.open_elements()

    def stop_all(self, signals: StopSignals, display: LocalDisplay) -> None:
        """End all running jobs: TERM, time to checkpoint, KILL; a second signal kills at once."""
        for job in self.jobs.running.values():
            self.jobs.ask_to_stop(job)
        if self.jobs.running:
            grace = f"{self.jobs.stop_grace_s:.0f} s"
            display.say(f"stopping {len(self.jobs.running)} running, at most {grace}; Ctrl-C again kills at once")
        while self.jobs.running and signals.count < 2:  # noqa: PLR2004  # first asks, second insists
            self.jobs.settle_exited()
            display.show(self.queue)
            time.sleep(TICK_S)
        for job in list(self.jobs.running.values()):
            self.jobs.settle(job)
        display.show(self.queue)

    def _act_on_cancels(self, cancels: frozenset[str]) -> None:
        if not cancels:
            return
        for element in self.queue.elements.values():
            status = self.queue.state(element.element_id).status
            if status not in OPEN or not any(asked_to_cancel(element, cancels)):
                continue
            job = self.jobs.running.get(element.element_id)
            if job is None:
                self.queue.end(element, ElementStatus.CANCELLED)
            else:
                job.is_cancelled = True
                self.jobs.ask_to_stop(job)
        for name in cancels:
            self.queue.paths.cancel(name).unlink(missing_ok=True)

    def _drop_hopeless(self) -> None:
        for element in self._pending():
            refusal = refuse_job(element.submission.resources, self.jobs.machine)
            if refusal is not None:
                self.queue.end(element, ElementStatus.REFUSED, reason=refusal)
            elif self.queue.check_dependency(element) is Dependency.BROKEN:
                parent = self.queue.state(self.queue.parent_of(element) or "")
                reason = _blocked_reason(self.queue.parent_name(element), parent)
                self.queue.end(element, ElementStatus.BLOCKED, reason=reason)

    def _start_fitting(self, now: float) -> None:
        ready = [e for e in self._pending() if self.queue.check_dependency(e) is Dependency.READY]
        waiting = [
            Waiting(
                element_id=element.element_id,
                need=need_of(element.submission.resources, self.jobs.machine),
                num_overtaken=self._overtaken[element.element_id],
                waited_s=now - self._waiting_since.setdefault(element.element_id, now),
            )
            for element in ready
        ]
        choice = choose_starts(waiting, free_gpus=self.jobs.free_gpus(), free_cpus=self.jobs.free_cpus())
        self._overtaken.update(choice.overtaken)
        for start in choice.starts:
            self.jobs.start(start)

    def _pending(self) -> list[QueuedElement]:
        return [
            element
            for element in self.queue.open_elements()
            if self.queue.state(element.element_id).status is ElementStatus.PENDING
        ]


def run_queue(
    save_dir: Path,
    *,
    display: bool,
    job_command: JobCommand | None = None,
    machine: Machine | None = None,
    stop_grace_s: float = STOP_GRACE_S,
    how_to_continue: str = HOW_TO_CONTINUE,
) -> int:
    """Run the local queue, or follow the runner that does, until it is empty.

    Args:
        save_dir: the save directory.
        display: whether to show progress on standard output.
        job_command: what runs a job; by default its supervisor.
        machine: the slots to hand out; by default this machine's.
        stop_grace_s: time from TERM to KILL when jobs are stopped.
        how_to_continue: what is said to a person who stops it.

    Returns:
        0 when all went well, 1 when a job failed, 130 when it was interrupted. Jobs that had ended before do not count.
    """
    save_dir = save_dir.absolute()
    setup = _Setup(save_dir, job_command or supervisor_command(save_dir), machine, stop_grace_s, how_to_continue)
    with open_display(enabled=display) as screen:
        return _drive(setup, screen, follow=True)


def start_detached(save_dir: Path) -> int:
    """Start a runner that survives a logout, unless one runs already; return its process id.

    Raises:
        SchedulerError: it ended at once.
    """
    paths = LocalPaths(save_dir.absolute())
    runner = live_runner(paths)
    if runner is not None:
        return runner.pid
    paths.folder.mkdir(parents=True, exist_ok=True)
    argv = module_command("hpcbench.scheduler.local.runner", str(paths.save_dir))
    files = [
        (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
        (os.POSIX_SPAWN_OPEN, 1, str(paths.log), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666),
        (os.POSIX_SPAWN_DUP2, 1, 2),
    ]
    # A session of its own gets no SIGHUP when the terminal of the login closes (setsid(2)).
    pid = os.posix_spawn(argv[0], argv, os.environ, file_actions=files, setsid=True)
    deadline = time.monotonic() + DETACH_TIMEOUT_S
    while time.monotonic() < deadline:
        runner = live_runner(paths)
        if runner is not None:
            return runner.pid
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended and os.waitstatus_to_exitcode(status) != 0:
            raise SchedulerError("the local runner ended at once", hint=f"see {paths.log}")
        if ended:
            break
        time.sleep(TICK_S)
    return pid


def main(arguments: list[str] | None = None) -> int:
    """Run the queue of a save directory in the background; its log shows what happens."""
    parser = argparse.ArgumentParser(
        prog="python -m hpcbench.scheduler.local.runner", description="run the local queue of a save directory"
    )
    parser.add_argument("save_dir", type=Path)
    options = parser.parse_args(arguments)
    open_streams()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s", stream=sys.stderr)
    save_dir = options.save_dir.absolute()
    try:
        code = _drive(_Setup(save_dir, supervisor_command(save_dir)), LineDisplay(sys.stdout), follow=False)
    except HpcbenchError as error:
        logger.error("%s", error)
        return EXIT_FAILED
    # The states show which jobs failed; this process itself has done its work.
    return EXIT_INTERRUPTED if code == EXIT_INTERRUPTED else EXIT_DONE


@dataclass(frozen=True, slots=True)
class _Setup:
    save_dir: Path
    job_command: JobCommand
    machine: Machine | None = None
    stop_grace_s: float = STOP_GRACE_S
    how_to_continue: str = HOW_TO_CONTINUE

    def make_runner(self) -> LocalRunner:
        table = JobTable(
            queue=LocalQueue(self.save_dir),
            machine=self.machine or read_machine(),
            job_command=self.job_command,
            stop_grace_s=self.stop_grace_s,
        )
        return LocalRunner(jobs=table)


def _drive(setup: _Setup, display: LocalDisplay, *, follow: bool) -> int:
    paths = LocalPaths(setup.save_dir)
    queue = _read_queue(setup.save_dir)
    ended_before = {name for name in queue.elements if queue.state(name).status not in OPEN}
    display.show(queue)
    with catch_signals() as signals:
        while queue.open_elements():
            before = last_runner(paths)
            if take_claim(paths):
                if before is not None and not is_here(before):
                    display.say(f"{_silence(before)}: this process takes its place")
                interrupted = _run(setup, display, signals)
            elif (runner := live_runner(paths)) is None:  # it left between the two questions
                continue
            elif follow:
                interrupted = _follow(setup, runner, display, signals)
            else:
                display.say(f"the queue is run by process {runner.pid} already")
                return EXIT_DONE
            if interrupted:
                return EXIT_INTERRUPTED
            # Something may have been queued between the last look and the end of the claim.
            queue = _read_queue(setup.save_dir)
    failed = [name for name in queue.elements if name not in ended_before and queue.is_failure(name)]
    return EXIT_FAILED if failed else EXIT_DONE


def _run(setup: _Setup, display: LocalDisplay, signals: StopSignals) -> bool:
    """Run the queue until it is empty; return whether it was interrupted. No job is left running, come what may."""
    paths = LocalPaths(setup.save_dir)
    runner: LocalRunner | None = None
    try:
        runner = setup.make_runner()
        runner.take_over()
        heard_at = _now_s()
        while not runner.is_idle():
            if _now_s() - heard_at > HEARTBEAT_S:
                heard_at = _now_s()
                if not renew_claim(paths):
                    _give_way(runner, paths, display)
            runner.step()
            display.show(runner.queue)
            if signals.count:
                note_stopped(paths)
                runner.stop_all(signals, display)
                num_open = len(runner.queue.open_elements())
                display.say(f"interrupted, jobs left in the queue: {num_open}; {setup.how_to_continue}")
                return True
            time.sleep(TICK_S)
        return False
    finally:
        try:
            if runner is not None and runner.jobs.running:
                runner.stop_all(signals, display)
        finally:
            leave_claim(paths)


def _now_s() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME)  # unlike CLOCK_MONOTONIC it goes on while the machine is suspended


def _give_way(runner: LocalRunner, paths: LocalPaths, display: LocalDisplay) -> NoReturn:
    """Stop the jobs of this runner, whose place another one has taken, and raise SchedulerError."""
    other = last_runner(paths)
    who = "another local runner" if other is None else f"process {other.pid} on {other.host}"
    display.say(f"{who} has taken this runner's place; stopping {len(runner.jobs.running)} running")
    runner.jobs.abandon_all()
    raise SchedulerError(
        f"{who} runs the local queue now: this machine was not heard of for {SILENCE_S:.0f} s",
        hint=f"{quoted('status')} shows what became of the jobs",
    )


def _silence(runner: ProcessIdentity) -> str:
    return f"nothing was heard of the local runner, process {runner.pid} on {runner.host}, for {SILENCE_S:.0f} s"


def _follow(setup: _Setup, runner: ProcessIdentity, display: LocalDisplay, signals: StopSignals) -> bool:
    """Show what another runner does until it is gone; return whether this or that process was interrupted."""
    paths = LocalPaths(setup.save_dir)
    is_far = not is_here(runner)
    until = f"; this one takes its place once it is silent for {SILENCE_S:.0f} s" if is_far else ""
    display.say(f"following the local runner, process {runner.pid} on {runner.host}{until}")
    queue = LocalQueue(setup.save_dir)
    while True:
        is_there = live_runner(paths) == runner
        queue.reload()
        display.show(queue)
        if signals.count:
            display.say(f"left; process {runner.pid} on {runner.host} goes on: see {quoted('status')}")
            return True
        if not is_there:
            break
        time.sleep(FOLLOW_FAR_S if is_far else FOLLOW_S)
    if queue.open_elements() and was_stopped(paths, runner):
        display.say(f"the local runner was stopped; {setup.how_to_continue}")
        return True
    return False


def _read_queue(save_dir: Path) -> LocalQueue:
    queue = LocalQueue(save_dir)
    queue.reload()
    return queue


def _blocked_reason(name: str, parent: ElementState) -> str:
    match parent.status:
        case ElementStatus.CANCELLED:
            return f"{name} was cancelled"
        case ElementStatus.BLOCKED:
            return f"{name} is blocked itself"
        case ElementStatus.LOST:
            return f"{name} was lost"
        case _:
            return f"{name} failed" + (f" ({parent.reason})" if parent.reason else "")


if __name__ == "__main__":
    sys.exit(main())
