"""Processes of a test cluster: started in a session of their own, found again by pid file, ended for certain.

In: command lines, pid files, the process table. Out: running or ended processes.
Never: a signal to a process that no pid file of the cluster names and that is not a job of it.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.support.slurm_cluster.installation import ClusterError

# $0 is the pid file. The start time beside the pid tells the daemon from a later process of the same number.
_LAUNCH_SCRIPT = 'umask 022; cut -d" " -f1,22 /proc/$$/stat >"$0.new" && mv "$0.new" "$0" && exec "$@"'


@dataclass(frozen=True, slots=True)
class Process:
    """One process, told apart from a later one of the same number by its start time."""

    pid: int
    start_ticks: int
    """Clock ticks between the boot of the machine and the start of the process."""


def start_daemon(argv: list[str], *, pid_file: Path, log_file: Path, environment: Mapping[str, str]) -> None:
    """Start a program that outlives the caller, its shell and its terminal.

    Args:
        argv: The command line; the program has to stay in the foreground.
        pid_file: Where its process number goes, for `read_live`.
        log_file: What its standard output and error are appended to.
        environment: Its whole environment.

    Raises:
        ClusterError: It could not be started.
    """
    pid_file.unlink(missing_ok=True)
    # setsid --fork hands it to init, so it leaves no zombie (nor a ResourceWarning) behind in the caller.
    with log_file.open("ab") as log:
        subprocess.run(
            ["setsid", "--fork", "sh", "-c", _LAUNCH_SCRIPT, str(pid_file), *argv],
            env=dict(environment),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd="/",
            timeout=30,
            check=True,
        )
    wait_until(pid_file.exists, what=f"{argv[0]} to start", timeout_s=60, log_file=log_file)


def read_live(pid_file: Path) -> Process | None:
    """Return the process that a pid file names, or nothing when it has ended."""
    try:
        pid, start_ticks = (int(word) for word in pid_file.read_text(encoding="ascii").split())
    except (OSError, ValueError):
        return None
    process = Process(pid, start_ticks)
    return process if is_alive(process) else None


def is_alive(process: Process) -> bool:
    """Return whether a process still runs; a zombie does not."""
    fields = _read_stat(process.pid)
    return fields is not None and fields[0] not in "ZX" and int(fields[19]) == process.start_ticks


def end_processes(processes: Iterable[Process], *, grace_s: float) -> None:
    """Send SIGTERM, wait, then send SIGKILL to what is left.

    Args:
        processes: What to end.
        grace_s: Seconds between the two signals; 0 sends SIGKILL at once.

    Raises:
        ClusterError: A process survived SIGKILL.
    """
    remaining = list(processes)
    for signal_number, patience_s in ((signal.SIGTERM, grace_s), (signal.SIGKILL, 10.0)):
        if patience_s == 0:
            continue
        remaining = [process for process in remaining if is_alive(process)]
        for process in remaining:
            _send_signal(process, signal_number)
        deadline = time.monotonic() + patience_s
        while any(is_alive(process) for process in remaining) and time.monotonic() < deadline:
            time.sleep(0.02)
    stuck = [process.pid for process in remaining if is_alive(process)]
    if stuck:
        raise ClusterError(f"stop: processes {stuck} survived SIGKILL")


def list_job_processes(slurm_conf: Path, spool: Path) -> list[Process]:
    """List the processes of jobs: each slurmstepd of the cluster, and what carries the cluster's job environment.

    Children of a killed job stay behind under proctrack/linuxproc, so a parent proves nothing.

    Args:
        slurm_conf: The cluster's slurm.conf, which every job finds in SLURM_CONF.
        spool: Folder of the slurmd spools, where each slurmstepd keeps its socket.
    """
    found = []
    step_sockets = _list_socket_inodes(spool)
    for pid in _list_pids():
        fields = _read_stat(pid)
        if fields is None or fields[0] in "ZX" or pid == os.getpid():
            continue
        if _is_job_process(pid, slurm_conf) or _holds_socket(pid, step_sockets):
            found.append(Process(pid, int(fields[19])))
    return found


def wait_until(condition: Callable[[], bool], *, what: str, timeout_s: float, log_file: Path | None = None) -> None:
    """Return once a condition holds.

    Args:
        condition: What is asked again and again.
        what: What is waited for, for the error's text.
        timeout_s: Seconds to wait at most.
        log_file: The log whose end explains a failure.

    Raises:
        ClusterError: It did not come true in time.
    """
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            raise ClusterError(f"waited {timeout_s:g} s for {what}{_describe_log(log_file)}")
        time.sleep(0.05)


def _describe_log(log_file: Path | None) -> str:
    if log_file is None or not log_file.is_file():
        return ""
    tail = log_file.read_text(encoding="utf-8", errors="replace").splitlines()[-8:]
    return "\n  ".join([f"\n  end of {log_file}:", *tail])


def _send_signal(process: Process, signal_number: signal.Signals) -> None:
    try:
        os.kill(process.pid, signal_number)
    except ProcessLookupError:
        return


def _list_pids() -> Iterator[int]:
    return (int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit())


def _read_stat(pid: int) -> list[str] | None:
    """Return the fields of /proc/PID/stat from the state (field 3) on."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    return text.rpartition(")")[2].split()  # the command's name, in brackets, may hold anything


def _is_job_process(pid: int, slurm_conf: Path) -> bool:
    try:
        variables = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:
        return False
    own = f"SLURM_CONF={slurm_conf}".encode() in variables
    return own and any(variable.startswith(b"SLURM_JOB_ID=") for variable in variables)


def _list_socket_inodes(folder: Path) -> frozenset[str]:
    """Return the ``socket:[inode]`` names of the Unix sockets bound below a folder."""
    rows = (line.split(maxsplit=7) for line in Path("/proc/net/unix").read_text(encoding="utf-8").splitlines()[1:])
    return frozenset(f"socket:[{row[6]}]" for row in rows if len(row) == 8 and row[7].startswith(f"{folder}/"))


def _holds_socket(pid: int, names: frozenset[str]) -> bool:
    if not names:
        return False
    try:
        return any(str(entry.readlink()) in names for entry in Path(f"/proc/{pid}/fd").iterdir())
    except OSError:
        return False
