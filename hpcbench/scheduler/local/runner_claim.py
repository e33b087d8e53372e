"""One runner per save directory: who runs the local queue, and how a dead runner's place is taken.

A runner of another machine that is silent for long counts as dead. Should it live after all (a laptop that slept), it
finds another's claim in the place of its own and stops its jobs without a word to the queue.
"""

from __future__ import annotations

import hashlib
import logging
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager

from hpcbench.errors import SchedulerError, os_reason
from hpcbench.processes.process_tree import ProcessIdentity, this_process
from hpcbench.storage.claims import drop_claim, holder_of, is_abandoned
from hpcbench.storage.clock import now_text
from hpcbench.storage.json_files import JsonObject, create_json, read_json, write_json
from hpcbench.storage.paths import LocalPaths

logger = logging.getLogger(__name__)

TAKEOVER_TIMEOUT_S = 10.0
HEARTBEAT_S = 5.0  # between touches of the claim
# Then another machine's runner is dead: stopping jobs keeps it busy for 30 s, and NFS shows times up to a minute late.
SILENCE_S = 180.0


def live_runner(paths: LocalPaths) -> ProcessIdentity | None:
    """Return the process that runs the queue, or None; one on another machine while it touches its claim."""
    runner = last_runner(paths)
    return None if runner is None or is_abandoned(paths.runner, runner, silence_s=SILENCE_S) else runner


def last_runner(paths: LocalPaths) -> ProcessIdentity | None:
    """Return the process whose claim is there, dead or alive."""
    return holder_of(read_json(paths.runner))


def take_claim(paths: LocalPaths) -> bool:
    """Make this process the runner, unless another one is.

    Raises:
        SchedulerError: other processes of this machine are fighting over a dead runner's place for too long.
    """
    value = _claim_value()
    if not create_json(paths.runner, value):
        # Between seeing a dead runner and removing its file nobody else may do the same: the file could be a new one.
        with _takeover(paths):
            claim = read_json(paths.runner)
            if live_runner(paths) is not None or not drop_claim(paths.runner, claim):
                return False
            if not create_json(paths.runner, value):
                return False
    paths.stopped.unlink(missing_ok=True)
    return True


def renew_claim(paths: LocalPaths) -> bool:
    """Touch the claim, so that other machines see this runner at work; return whether it still holds the queue."""
    runner = last_runner(paths)
    if runner is not None and runner != this_process():
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
    if last_runner(paths) == this_process():
        paths.runner.unlink(missing_ok=True)


def note_stopped(paths: LocalPaths) -> None:
    """Write for followers that this runner was asked to stop before its queue was empty."""
    write_json(paths.stopped, _claim_value())


def was_stopped(paths: LocalPaths, runner: ProcessIdentity) -> bool:
    """Return whether a runner that is gone had been asked to stop."""
    return holder_of(read_json(paths.stopped)) == runner


def _claim_value() -> JsonObject:
    process = this_process()
    if process.start_ticks is None:
        raise SchedulerError("/proc: this process is not listed", hint="local mode needs Linux with /proc mounted")
    return {"schema_version": 1, "process": process.model_dump(mode="json"), "at": now_text()}


@contextmanager
def _takeover(paths: LocalPaths) -> Iterator[None]:
    """Let one process of this machine at a time in here."""
    digest = hashlib.sha256(str(paths.runner.resolve()).encode()).hexdigest()[:32]
    deadline = time.monotonic() + TAKEOVER_TIMEOUT_S
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as lock:
        while True:
            try:
                lock.bind(f"\0hpcbench-{os.getuid()}-{digest}")  # unix(7): no file, ends with its process
                break
            except OSError as error:
                if time.monotonic() > deadline:
                    raise SchedulerError(
                        f"{paths.runner}: another process is taking it over: {os_reason(error)}"
                    ) from error
                time.sleep(0.05)
        yield
