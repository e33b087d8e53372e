"""The jobs that one worker runs in turn: evals of one model, which loads it once.

In: `next.json` in the folder of the attempt that is done, by the supervisor. Out: the next job; what this process
prints goes into that attempt's log from then on. Between turns it waits, and dies with its launcher.
"""

from __future__ import annotations

import logging
import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from hpcbench.schemas.notes import WAITS, NextTurn
from hpcbench.storage.paths import AttemptPaths, JobPaths

logger = logging.getLogger(__name__)

POLL_S: Final = 0.1
USAGE: Final = f"usage: python -m hpcbench.worker JOB_FOLDER ATTEMPT_FOLDER [{WAITS}]"


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """One attempt of one job."""

    job: JobPaths
    attempt: AttemptPaths
    waits: bool = False
    """Whether another turn may come after this one."""


def read_turn(arguments: list[str]) -> Turn | None:
    """Return the first turn by the command line, or None where that is wrong."""
    match arguments:
        case [job, attempt]:
            waits = False
        case [job, attempt, word] if word == WAITS:
            waits = True
        case _:
            return None
    return Turn(job=JobPaths(Path(job)), attempt=AttemptPaths(Path(attempt)), waits=waits)


def wait_for_next(turn: Turn) -> Turn | None:
    """Wait for the turn after one that is done and return it; None where none follows, or this one was stopped."""
    if not turn.waits or turn.attempt.interrupted.exists():
        return None
    logger.info("done; the model stays loaded for the next eval")
    while (note := NextTurn.read(turn.attempt.next)) is None:
        time.sleep(POLL_S)
    following = Turn(
        job=JobPaths(Path(note.job_folder)), attempt=AttemptPaths(Path(note.attempt_folder)), waits=note.waits
    )
    _move_to(following.attempt)
    return following


def _move_to(attempt: AttemptPaths) -> None:
    """Print into this attempt's log, and work in its folder, as a process that was started for it would."""
    sys.stdout.flush()
    sys.stderr.flush()
    log = os.open(attempt.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.close(log)
    os.chdir(attempt.folder)
