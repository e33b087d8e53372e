"""One runner per save directory: who runs the local queue, and how a dead runner's place is taken.

In: the queue's files. Out: `runner.json`, created atomically. A runner of another machine is never declared dead
from here: nothing can be known of its process.
"""

from __future__ import annotations

import hashlib
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager

from pydantic import BaseModel, ConfigDict, ValidationError

from hpcbench.clock import now_text
from hpcbench.errors import SchedulerError
from hpcbench.jsonfile import create_json, read_json, write_json
from hpcbench.paths import LocalPaths
from hpcbench.processes import ProcessIdentity, identify_process, is_alive, is_here

TAKEOVER_TIMEOUT_S = 10.0


class RunnerClaim(BaseModel):
    """The process that runs the queue (`runner.json`), or that was told to stop (`stopped.json`)."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    process: ProcessIdentity
    at: str


def live_runner(paths: LocalPaths) -> ProcessIdentity | None:
    """Return the process that runs the queue, or None when there is none; one on another machine counts as alive."""
    claim = _read_claim(paths)
    if claim is None:
        return None
    return claim.process if not is_here(claim.process) or is_alive(claim.process) else None


def take_claim(paths: LocalPaths) -> bool:
    """Make this process the runner, unless another one is.

    Raises:
        SchedulerError: other processes of this machine are fighting over a dead runner's place for too long.
    """
    value = _claim_value()
    if not create_json(paths.runner, value):
        # Between seeing a dead runner and removing its file nobody else may do the same: the file could be a new one.
        with _takeover(paths):
            if live_runner(paths) is not None:
                return False
            paths.runner.unlink(missing_ok=True)
            if not create_json(paths.runner, value):
                return False
    paths.stopped.unlink(missing_ok=True)
    return True


def leave_claim(paths: LocalPaths) -> None:
    """Give the runner's place up, if it is this process's."""
    claim = _read_claim(paths)
    if claim is not None and claim.process == identify_process(os.getpid()):
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
    value = read_json(paths.runner)
    try:
        return None if value is None else RunnerClaim.model_validate(value)
    except ValidationError:
        return None


def _claim_value() -> dict[str, object]:
    process = identify_process(os.getpid())
    if process is None:
        raise SchedulerError("/proc: this process is not listed", hint="local mode needs Linux with /proc mounted")
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
