"""What a supervisor started for a job: its launcher, with the reaper beside it.

In: what to start, and later the next job for a worker that waits for one with its model loaded. Out: whether the turn
of a job is over. It judges no ending and writes no record.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from hpcbench.job.launch import Launch
from hpcbench.job.reaper import PATIENCE_S, finish, start_reaper
from hpcbench.processes.process_tree import kill_tree
from hpcbench.processes.start import start_child
from hpcbench.schemas.notes import NextTurn
from hpcbench.storage.paths import AttemptPaths, JobPaths

logger = logging.getLogger(__name__)


@dataclass(slots=True, kw_only=True)
class WorkerProcess:
    """A started launcher; its worker may run several jobs, one after the other."""

    launch: Launch
    child: subprocess.Popen[bytes]
    reaper: subprocess.Popen[bytes] | None
    attempt: AttemptPaths
    """Whose turn it is."""
    waits: bool
    """Whether the worker stays after this turn, for the next one."""
    inputs: Mapping[str, str]
    """Hashes of the files that were compared before it loaded them, and that it does not read again."""
    log: Path
    """Where the launcher prints, whichever job's turn it is."""
    printed_bytes: int = 0
    """How much of that is of earlier turns."""

    @classmethod
    def start(
        cls, launch: Launch, attempt: AttemptPaths, *, token: str, waits: bool, inputs: Mapping[str, str]
    ) -> WorkerProcess:
        """Start a launcher.

        Raises:
            OSError: the program cannot be started.
        """
        # Slurm signals all processes of a step, and a signal without a handler ends a rank before its checkpoint.
        at_stop = signal.SIG_DFL if launch.is_program else signal.SIG_IGN
        dispositions = {signal.SIGUSR2: signal.SIG_IGN, signal.SIGTERM: at_stop, signal.SIGINT: at_stop}
        launch.cwd.mkdir(parents=True, exist_ok=True)
        child = start_child(launch.argv, env=launch.env, log=attempt.log, cwd=launch.cwd, dispositions=dispositions)
        return cls(
            launch=launch,
            child=child,
            reaper=start_reaper(token, os.environ),
            attempt=attempt,
            waits=waits,
            inputs=inputs,
            log=attempt.log,
        )

    @property
    def is_waiting(self) -> bool:
        """Whether the worker has done its turn and waits for the next one."""
        return self.waits and self.attempt.metrics.exists() and self.child.poll() is None

    def hand_over(self, job: JobPaths, attempt: AttemptPaths, *, waits: bool) -> None:
        """Give the waiting worker its next job; what it prints from now on goes into that attempt's log.

        Raises:
            OSError: the worker cannot be told.
        """
        note = NextTurn(job_folder=str(job.folder), attempt_folder=str(attempt.folder), waits=waits)
        with contextlib.suppress(OSError):
            self.printed_bytes = self.log.stat().st_size
        note.write(self.attempt.next)
        self.attempt, self.waits = attempt, waits

    def end(self, patience_s: float = PATIENCE_S) -> None:
        """End what is left of it; what its launcher said of a later turn's end goes into that attempt's log."""
        kill_tree(self.child)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.child.wait(patience_s)
        finish(self.reaper, patience_s)
        if self.log == self.attempt.log:
            return
        try:
            with self.log.open("rb") as said, self.attempt.log.open("ab") as log:
                said.seek(self.printed_bytes)
                log.write(said.read())
        except OSError as error:
            logger.warning("%s: not complete: %s", self.attempt.log, error)


@dataclass(slots=True)
class WorkerSlot:
    """The process that the jobs of one scheduler job share, None while there is none."""

    process: WorkerProcess | None = None
    more_follow: bool = False
    """Whether another job comes after the one whose turn it is."""

    def take_waiting(self) -> WorkerProcess | None:
        """Return the worker that waits for a job; one that does not wait any more is ended."""
        if self.process is not None and not self.process.is_waiting:
            self.clear()
        return self.process

    def clear(self, patience_s: float = PATIENCE_S) -> None:
        """End the process, if there is one."""
        if self.process is not None:
            self.process.end(patience_s)
            self.process = None
