"""One runner per save directory: who runs the local queue, and how a dead runner's place is taken.

In: the queue's files. Out: `runner.json`, created atomically and touched every few seconds. Of a runner of another
machine nothing but that can be known: once it has been silent for long, it counts as dead. Should it live after all (a
laptop that slept), it finds another's claim in the place of its own and stops its jobs without a word to the queue.
"""

from __future__ import annotations

import functools
import hashlib
import logging
import os
import secrets
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager

from pydantic import BaseModel, ConfigDict, ValidationError

from hpcbench.errors import SchedulerError
from hpcbench.processes import ProcessIdentity, identify_process, is_alive, is_here
from hpcbench.storage.clock import file_age_s, now_text
from hpcbench.storage.json_files import JsonObject, create_json, read_json, write_json
from hpcbench.storage.paths import LocalPaths

logger = logging.getLogger(__name__)

TAKEOVER_TIMEOUT_S = 10.0
HEARTBEAT_S = 5.0
"""How often a runner touches its claim."""
SILENCE_S = 180.0
"""A runner of another machine that did not touch its claim for so long is dead. It may be busy for 30 s, stopping jobs,
and network file systems show times up to a minute late."""


class RunnerClaim(BaseModel):
    """The process that runs the queue (`runner.json`), or that was told to stop (`stopped.json`)."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    process: ProcessIdentity
    at: str


def live_runner(paths: LocalPaths) -> ProcessIdentity | None:
    """Return the process that runs the queue, or None when there is none; one on another machine while it is heard."""
    claim = _read_claim(paths)
    if claim is None:
        return None
    lives = is_alive(claim.process) if is_here(claim.process) else not _is_silent(paths)
    return claim.process if lives else None


def last_runner(paths: LocalPaths) -> ProcessIdentity | None:
    """Return the process whose claim is there, dead or alive."""
    claim = _read_claim(paths)
    return None if claim is None else claim.process


def take_claim(paths: LocalPaths) -> bool:
    """Make this process the runner, unless another one is.

    Raises:
        SchedulerError: other processes of this machine are fighting over a dead runner's place for too long.
    """
    value = _claim_value()
    if not create_json(paths.runner, value):
        # Between seeing a dead runner and removing its file nobody else may do the same: the file could be a new one.
        with _takeover(paths):
            claim = _read_claim(paths)
            if live_runner(paths) is not None or not _put_aside(paths, claim):
                return False
            if not create_json(paths.runner, value):
                return False
    paths.stopped.unlink(missing_ok=True)
    return True


def renew_claim(paths: LocalPaths) -> bool:
    """Let other machines hear of this runner; return whether it still is the one."""
    claim = _read_claim(paths)
    if claim is not None and claim.process != _this_process(os.getpid()):
        return False
    try:
        os.utime(paths.runner)
    except FileNotFoundError:
        return create_json(paths.runner, _claim_value())
    except OSError as error:
        # Perhaps the file server is away; it is tried again.
        logger.warning("%s: cannot be touched: %s", paths.runner, error)
    return True


def leave_claim(paths: LocalPaths) -> None:
    """Give the runner's place up, if it is this process's."""
    claim = _read_claim(paths)
    if claim is not None and claim.process == _this_process(os.getpid()):
        paths.runner.unlink(missing_ok=True)


def note_stopped(paths: LocalPaths) -> None:
    """Tell followers that this runner leaves a queue that is not empty because it was told to."""
    write_json(paths.stopped, _claim_value())


def was_stopped(paths: LocalPaths, runner: ProcessIdentity) -> bool:
    """Say whether a runner that is gone had been told to stop."""
    value = read_json(paths.stopped)
    try:
        return value is not None and RunnerClaim.model_validate(value).process == runner
    except ValidationError:
        return False


def _read_claim(paths: LocalPaths) -> RunnerClaim | None:
    return _parse_claim(read_json(paths.runner))


def _parse_claim(value: JsonObject | None) -> RunnerClaim | None:
    try:
        return None if value is None else RunnerClaim.model_validate(value)
    except ValidationError:
        return None


def _is_silent(paths: LocalPaths) -> bool:
    age_s = file_age_s(paths.runner)
    return age_s is not None and age_s > SILENCE_S


def _put_aside(paths: LocalPaths, dead: RunnerClaim | None) -> bool:
    """Remove a dead runner's claim; return False where another machine's runner has taken the place meanwhile."""
    aside = paths.runner.with_name(f".{paths.runner.name}.{os.getpid()}.{secrets.token_hex(4)}.dropped")
    try:
        # Renamed first: of two machines that do it, each looks at what it has really taken away.
        paths.runner.rename(aside)
    except FileNotFoundError:
        return True
    value = read_json(aside)
    found = _parse_claim(value)
    aside.unlink(missing_ok=True)
    if value is None or found is None or (dead is not None and found.process == dead.process):
        return True
    create_json(paths.runner, value)
    return False


@functools.cache
def _this_process(pid: int) -> ProcessIdentity:
    """Return who this process is; asked once, for a machine may get another name."""
    process = identify_process(pid)
    if process is None:
        raise SchedulerError("/proc: this process is not listed", hint="local mode needs Linux with /proc mounted")
    return process


def _claim_value() -> JsonObject:
    process = _this_process(os.getpid())
    return {"schema_version": 1, "process": process.model_dump(mode="json"), "at": now_text()}


@contextmanager
def _takeover(paths: LocalPaths) -> Iterator[None]:
    """Let one process of this machine at a time in here.

    The lock is a name in the kernel's abstract socket namespace (unix(7)): it needs no file and ends with its process.
    """
    digest = hashlib.sha256(str(paths.runner.resolve()).encode()).hexdigest()[:32]
    deadline = time.monotonic() + TAKEOVER_TIMEOUT_S
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as lock:
        while True:
            try:
                lock.bind(f"\0hpcbench-{os.getuid()}-{digest}")
                break
            except OSError as error:
                if time.monotonic() > deadline:
                    raise SchedulerError(f"{paths.runner}: another process is taking it over: {error}") from error
                time.sleep(0.05)
        yield
