"""Starting other programs: hpcbench's own modules, and children that end with their parent (Linux, prctl(2)).

In: commands, environments. Out: started processes. How they are found again and ended is in `process_tree.py`.
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

PR_SET_PDEATHSIG = 1
"""prctl(2)."""

# Loaded before any fork: between fork and exec only the kernel may be called, since other threads hold locks.
LIBC = ctypes.CDLL(None, use_errno=True)


def die_with_parent(parent: int, number: signal.Signals = signal.SIGKILL) -> bool:
    """Have the kernel signal this process once its parent ends; leave at once if it has ended already.

    It calls the kernel alone, so it may run between fork and exec.

    Args:
        parent: process id that the parent had when this process began.
        number: signal to be sent.

    Returns:
        Whether the kernel takes the request.
    """
    # exec(2) keeps the setting, fork(2) does not.
    is_set: bool = LIBC.prctl(PR_SET_PDEATHSIG, int(number), 0, 0, 0) == 0
    # A parent that ended before the call is not reported by the kernel; then init or a subreaper has taken its place.
    if os.getppid() != parent:
        os._exit(1)
    return is_set


def module_command(module: str, *arguments: str, python: str | None = None) -> list[str]:
    """Return the command that runs an installed module with this Python or another, wherever it is started.

    With -P the current folder is not on Python's path: a user's random.py there would be imported in place of the
    standard library's. An option and not PYTHONSAFEPATH, which the programs of users would inherit.
    """
    return [python or sys.executable, "-P", "-m", module, *arguments]


def start_child(
    argv: Sequence[str],
    *,
    env: Mapping[str, str],
    log: Path,
    cwd: Path | None = None,
    on_parent_death: signal.Signals = signal.SIGKILL,
    dispositions: Mapping[signal.Signals, signal.Handlers] | None = None,
) -> subprocess.Popen[bytes]:
    """Start a command in its own session, with its output appended to a file.

    Args:
        argv: the command.
        env: its environment.
        log: the file.
        cwd: folder to run in; None is this process's.
        on_parent_death: signal that it gets when this process, or just the calling thread, ends (prctl(2)).
        dispositions: signals that it ignores or whose default action it takes; the others are inherited.

    Raises:
        OSError: the program cannot be started or the log cannot be written.
    """
    parent = os.getpid()

    def prepare() -> None:
        die_with_parent(parent, on_parent_death)
        for number, handler in (dispositions or {}).items():
            signal.signal(number, handler)

    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as stream:
        return subprocess.Popen(
            list(argv),
            env=dict(env),
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=subprocess.STDOUT,
            preexec_fn=prepare,  # noqa: PLW1509  # it calls the kernel alone; nothing else sets PR_SET_PDEATHSIG
            start_new_session=True,
        )
