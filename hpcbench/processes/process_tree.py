"""Processes of this machine: who they are, whether they live, and how a whole tree of them is ended (Linux, proc(5)).

In: process ids and tokens. Out: identities, signals. It never signals a process that it cannot prove
to be the one that was meant: a pid alone proves nothing, pids are used again.
"""

from __future__ import annotations

import contextlib
import functools
import os
import signal
import socket
import subprocess
import time
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict

TOKEN_VARIABLE = "HPCBENCH_LOCAL_TOKEN"  # noqa: S105  # a name, not a secret
"""Carried by all processes of one start of a job, whatever session or parent they end up with."""
KILL_ROUNDS = 50
KILL_PAUSE_S = 0.02
_DEAD = frozenset({"Z", "X", "x"})


class ProcessIdentity(BaseModel):
    """One process, distinct from later ones that get the same pid."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    host: str
    pid: int
    start_ticks: int | None
    """Start time in clock ticks since boot (proc(5), field 22 of stat); None where /proc did not show it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessStat:
    """Fields of /proc/PID/stat."""

    state: str
    parent: int
    session: int
    start_ticks: int


def read_stat(pid: int) -> ProcessStat | None:
    """Return the stat of a process, or None when there is none."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    # The name, field 2, may hold blanks and parentheses.
    fields = text.rpartition(")")[2].split()
    return ProcessStat(state=fields[0], parent=int(fields[1]), session=int(fields[3]), start_ticks=int(fields[19]))


def identify_process(pid: int) -> ProcessIdentity | None:
    """Return the identity of a process of this machine, or None when it has ended."""
    stat = read_stat(pid)
    return None if stat is None else ProcessIdentity(host=socket.gethostname(), pid=pid, start_ticks=stat.start_ticks)


def this_process() -> ProcessIdentity:
    """Return the identity of this process; without a start time where there is no /proc."""
    return _name_self(os.getpid())


@functools.cache
def _name_self(pid: int) -> ProcessIdentity:
    """Keep the first answer, by pid: a machine may get another name while this runs, a fork another pid."""
    return identify_process(pid) or ProcessIdentity(host=socket.gethostname(), pid=pid, start_ticks=None)


def is_here(process: ProcessIdentity) -> bool:
    """Return whether the process belongs to this machine, whose /proc shows it."""
    return process.host == socket.gethostname()


def is_alive(process: ProcessIdentity) -> bool:
    """Return whether a process of this machine still runs; one that only waits to be reaped does not.

    Without a start time it runs while its pid exists.
    """
    stat = read_stat(process.pid)
    return stat is not None and process.start_ticks in {stat.start_ticks, None} and stat.state not in _DEAD


def is_hidden(pid: int) -> bool:
    """Return whether a process exists that /proc does not show: login nodes often mount it with hidepid (proc(5))."""
    if read_stat(pid) is not None:
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def send_signal(process: ProcessIdentity, number: signal.Signals) -> None:
    """Signal a process if it is certainly the one that was meant."""
    if is_here(process) and process.start_ticks is not None and is_alive(process):
        signal_pid(process.pid, number)


def kill_tree(child: subprocess.Popen[bytes]) -> None:
    """Kill what is left of a child that leads its own session: its descendants and its process group."""
    for pid in descendants(child.pid):
        # A child that was waited for has given its pid back, and another process may have it by now.
        if pid != child.pid or child.returncode is None:
            signal_pid(pid, signal.SIGKILL)
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(child.pid, signal.SIGKILL)


def kill_processes(token: str, process: ProcessIdentity | None = None) -> int:
    """Kill every process of one start of a job: its session, its descendants, and whatever carries its token.

    Args:
        token: value of `TOKEN_VARIABLE` that the start was given.
        process: the start's first process, when it is known.

    Returns:
        How many processes were still there.
    """
    seen: set[int] = set()
    # Again until none is left: a process may fork between the search and the signal.
    for _ in range(KILL_ROUNDS):
        found = _find_processes(token, process)
        if not found:
            break
        seen |= found
        for pid in found:
            signal_pid(pid, signal.SIGKILL)
        time.sleep(KILL_PAUSE_S)
    return len(seen)


def _find_processes(token: str, process: ProcessIdentity | None) -> set[int]:
    """Return the living processes of a start; the first process lends its session only while it is certainly itself."""
    stats = {pid: stat for pid in _list_pids() if (stat := read_stat(pid)) is not None and stat.state not in _DEAD}
    wanted = f"{TOKEN_VARIABLE}={token}".encode()
    found = {pid for pid in stats if wanted in _read_environment(pid)}
    first = None if process is None or not is_here(process) else stats.get(process.pid)
    if process is not None and first is not None and first.start_ticks == process.start_ticks:
        found |= {process.pid} | {pid for pid, stat in stats.items() if stat.session == process.pid}
    size = -1
    while size != len(found):
        size = len(found)
        found |= {pid for pid, stat in stats.items() if stat.parent in found}
    return found - {os.getpid()}


def find_processes(name: str, *, variable: str, values: Collection[str]) -> list[int]:
    """Return the living processes of this machine that run a program with one of these values in their environment."""
    wanted = {f"{variable}={value}".encode() for value in values}
    return [pid for pid in _list_pids() if _read_name(pid) == name and not wanted.isdisjoint(_read_environment(pid))]


def _read_name(pid: int) -> str:
    """Return a process's own short name (proc(5), comm), or nothing when it has ended."""
    try:
        return Path(f"/proc/{pid}/comm").read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""


def descendants(root: int) -> list[int]:
    """Return a process and all its descendants that are there."""
    children: dict[int, list[int]] = {}
    for pid in _list_pids():
        if (stat := read_stat(pid)) is not None:
            children.setdefault(stat.parent, []).append(pid)
    found, waiting = [], [root]
    while waiting:
        pid = waiting.pop()
        found.append(pid)
        waiting.extend(children.get(pid, []))
    return found


def _list_pids() -> list[int]:
    return [int(entry.name) for entry in os.scandir("/proc") if entry.name.isdigit()]


def _read_environment(pid: int) -> list[bytes]:
    """Return the variables a process was started with, nothing for those of other users."""
    try:
        return Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:
        return []


def signal_pid(pid: int, number: signal.Signals) -> None:
    """Send a signal to a process that may be gone."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.kill(pid, number)
