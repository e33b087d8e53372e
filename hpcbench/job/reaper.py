"""The reaper: a tiny process beside a job's launcher that ends whatever is left of the job when its supervisor is gone.

Once its pipe is closed, it kills all that carry the claim's token in their environment: where Slurm uses no cgroups,
nobody else would. It starts isolated (`python -I -S`, in hundredths of a second), so it imports nothing of hpcbench.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Mapping

CLAIM_VARIABLE = "HPCBENCH_CLAIM"  # variables.CLAIM, which this file must not import
DONE = b"1"
ROUNDS = 50
PAUSE_S = 0.02
PATIENCE_S = 10.0  # how long a supervisor waits for its reaper at the end


def start_reaper(token: str, environ: Mapping[str, str]) -> subprocess.Popen[bytes] | None:
    """Start the reaper of a job; return None where it cannot be started, and the job runs on.

    A job that this one submits inherits the token, and is told apart by its Slurm id.
    """
    import logging
    import subprocess

    marks = [f"{CLAIM_VARIABLE}={token}"]
    # Nodes of one job may be on one machine: slurmd can play several.
    marks += [f"{name}={environ[name]}" for name in ("SLURM_JOB_ID", "SLURM_NODEID") if name in environ]
    try:
        return subprocess.Popen(
            # Isolated and without site packages it starts in hundredths of a second.
            [sys.executable, "-I", "-S", __file__, *marks],
            env={name: environ[name] for name in ("LD_LIBRARY_PATH",) if name in environ},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,  # it must not hold srun's output open
            start_new_session=True,  # it must not be in the job's process group
        )
    except OSError as error:
        logging.getLogger(__name__).warning("no reaper: children of the job may outlive it: %s", error)
        return None


def finish(reaper: subprocess.Popen[bytes] | None, patience_s: float = PATIENCE_S) -> None:
    """Have the reaper end what is left of the job, and wait until it reports that it has."""
    import logging
    import subprocess

    if reaper is None:
        return

    try:
        is_done = reaper.communicate(timeout=patience_s)[0] == DONE
    except subprocess.TimeoutExpired:
        is_done = False
    if not is_done:
        logging.getLogger(__name__).warning("children of the job may still run: its reaper failed")


def find_marked(marks: set[bytes]) -> list[int]:
    """Return the processes of this user that have all these variables in their environment."""
    found = []
    for name in os.listdir("/proc"):  # noqa: PTH208  # pathlib takes longer to import than the rest to run
        if not name.isdigit():
            continue
        try:
            with open(f"/proc/{name}/environ", "rb") as stream:  # noqa: PTH123
                variables = set(stream.read().split(b"\0"))
        except OSError:  # it has ended, or is another user's (proc(5))
            continue
        if marks <= variables:
            found.append(int(name))
    return found


def kill_marked(marks: set[bytes]) -> bool:
    """Kill them until there are none; return whether that was reached."""
    for _ in range(ROUNDS):
        pids = find_marked(marks)
        if not pids:
            return True
        for pid in pids:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(PAUSE_S)
    return False


def main() -> None:
    """Wait for the end of the pipe, then kill."""
    # Slurm sends the signals of a job to all its processes.
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR2, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    # The last signal nobody can ignore; Slurm sends it to the descendants of its own process, so this is none of them.
    if os.fork():
        os._exit(0)
    while os.read(0, 1):
        pass
    if kill_marked({mark.encode() for mark in sys.argv[1:]}):
        # The supervisor may be gone.
        with contextlib.suppress(BrokenPipeError):
            os.write(1, DONE)


if __name__ == "__main__":
    main()
