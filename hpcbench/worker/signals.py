"""How a worker stops: at a step after the stop file appears, or at once when its launcher dies.

In: the attempt's folder. Out: whether a stop was asked for. Signals that the scheduler sprays over all processes are
ignored here, for a worker in the middle of a collective cannot answer one; the supervisor translates them into a file.
"""

from __future__ import annotations

import logging
import os
import signal
from types import FrameType

from hpcbench.errors import WorkerError
from hpcbench.processes.start import die_with_parent
from hpcbench.storage.paths import AttemptPaths
from hpcbench.worker.ranks import Ranks

logger = logging.getLogger(__name__)


class StopRequestedError(WorkerError):
    """The supervisor asked to stop at a place where nothing is worth saving; not a failure."""


def die_with_launcher() -> None:
    """Have the kernel kill this process when its launcher dies, and leave at once if it is dead already."""
    if not die_with_parent(os.getppid()):
        logger.warning("prctl failed: this process may outlive its launcher")


def ignore_signals(attempt: AttemptPaths) -> None:
    """Ignore INT and USR2; obey TERM only when another rank has failed."""

    def on_term(_signal: int, _frame: FrameType | None) -> None:
        # torchrun sends TERM to the other ranks when one has failed; Slurm sends it to all processes of the step.
        if attempt.failures():
            os._exit(1)

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # Slurm sends it to all processes of the step, not to the supervisor alone.
    signal.signal(signal.SIGUSR2, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, on_term)


def stop_requested(attempt: AttemptPaths) -> bool:
    """Return whether the supervisor's stop file is there; one stat, cheap enough for every step."""
    return attempt.stop.exists()


def leave_if_asked(attempt: AttemptPaths, *, ranks: Ranks) -> None:
    """Raise when a stop was asked for before training started; only where no other rank would be left waiting.

    Raises:
        StopRequestedError: a stop was asked for.
    """
    if ranks.is_alone and stop_requested(attempt):
        raise StopRequestedError("stopped before training started")
