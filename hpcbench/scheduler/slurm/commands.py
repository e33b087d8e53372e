"""Run one Slurm command, never twice: `client.py` repeats those that change nothing."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Sequence
from typing import Protocol

from hpcbench.errors import SchedulerError

COMMAND_TIMEOUT_S = 90
SUBMIT_COMMANDS = ("sbatch", "srun", "timeout")  # without srun on this machine submitit raises RuntimeError

# Messages of a controller that does not answer now and may answer later.
TRANSIENT = re.compile(
    r"timed? out|unable to contact|connection refused|zero bytes|communication connection failure|temporarily"
    r"|slurm_receive_msg|resource temporarily|try again",
    re.IGNORECASE,
)
# Beginnings of variables that are options of Slurm's commands: a user's SQUEUE_PARTITION would hide jobs from us.
FILTERING = ("SQUEUE_", "SACCT_", "SACCTMGR_", "SCANCEL_", "SCONTROL_", "SINFO_")


class RunCommand(Protocol):
    """Run a command and return its output; `run_command`, or a test's stand-in."""

    def __call__(self, command: Sequence[str], *, timeout_s: float = ...) -> str:
        """See `run_command`."""


def run_command(command: Sequence[str], *, check: bool = True, timeout_s: float = COMMAND_TIMEOUT_S) -> str:
    """Run one Slurm command and return what it printed.

    Raises:
        SchedulerError: it is missing, failed, or did not answer in time.
    """
    environment = {name: value for name, value in os.environ.items() if not name.startswith(FILTERING)}
    # Without these, squeue cuts long array expressions short ("...") and prints times as the site likes them.
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
        message = done.stderr.strip() or done.stdout.strip() or "no message"
        raise SchedulerError(f"{name}: exit code {done.returncode}: {message}")
    return done.stdout
