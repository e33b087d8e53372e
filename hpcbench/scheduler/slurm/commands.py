"""One Slurm command at a time: run it, with the user's filters taken away, and repeat what failed only for a moment.

In: an argument list. Out: what it printed, or SchedulerError.
"""

from __future__ import annotations

import logging
import os
import re
import subprocess
import time
from collections.abc import Sequence

from hpcbench.errors import SchedulerError

logger = logging.getLogger(__name__)

COMMAND_TIMEOUT_S = 90

TRANSIENT = re.compile(
    r"timed? out|unable to contact|connection refused|zero bytes|communication connection failure|temporarily"
    r"|slurm_receive_msg|resource temporarily|try again",
    re.IGNORECASE,
)

BUSY = re.compile(r"socket timed out|zero bytes|temporarily|try again", re.IGNORECASE)
"""A controller that is there and has too much to do."""

FILTERING = ("SQUEUE_", "SACCT_", "SACCTMGR_", "SCANCEL_", "SCONTROL_", "SINFO_")
"""Beginnings of variables that are options of Slurm's commands: a user's SQUEUE_PARTITION would hide jobs from us."""

QUICK_FAILURE_S = 3.0
"""Slurm's commands try for many seconds to reach a controller that is away; where they have done so, it is."""

ASK_AGAIN_AFTER_S = 1.0

FACTS_TIMEOUT_S = 30


def ask(command: Sequence[str], *, timeout_s: float = COMMAND_TIMEOUT_S) -> str:
    """Run a command that changes nothing, once more where its failure is one of a moment.

    Raises:
        SchedulerError: as `run_command`. A controller that is away is not waited for a second time.
    """
    started = time.monotonic()
    try:
        return run_command(command, timeout_s=timeout_s)
    except SchedulerError as error:
        was_quick = time.monotonic() - started < QUICK_FAILURE_S
        if not (BUSY.search(error.message) or (was_quick and TRANSIENT.search(error.message))):
            raise
        logger.info("%s; asked once more", error.message)
    time.sleep(ASK_AGAIN_AFTER_S)
    return run_command(command, timeout_s=timeout_s)


def run_command(command: Sequence[str], *, check: bool = True, timeout_s: float = COMMAND_TIMEOUT_S) -> str:
    """Run one Slurm command and return what it printed.

    Raises:
        SchedulerError: it is missing, failed, or did not answer in time.
    """
    environment = {name: value for name, value in os.environ.items() if not name.startswith(FILTERING)}
    environment |= {"SLURM_BITSTR_LEN": "0", "SLURM_TIME_FORMAT": "standard"}
    name = command[0]
    try:
        done = subprocess.run(
            list(command),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
            env=environment,
            errors="replace",
        )
    except FileNotFoundError as error:
        raise SchedulerError(
            f"{name}: not found on this machine", hint="load the Slurm module, or --cluster local"
        ) from error
    except subprocess.TimeoutExpired as error:
        raise SchedulerError(f"{name}: no answer within {timeout_s:.0f} s") from error
    if check and done.returncode != 0:
        words = done.stderr.strip() or done.stdout.strip() or "no message"
        raise SchedulerError(f"{name}: exit code {done.returncode}: {words}")
    return done.stdout
