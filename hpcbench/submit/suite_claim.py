"""The claim on a suite: one submit at a time, on any host, without file locks.

In: a suite's paths. Out: a context in which nobody else submits that suite. A claim whose owner is gone is taken over.
"""

from __future__ import annotations

import logging
import os
import secrets
import socket
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from hpcbench.errors import PlanError
from hpcbench.processes import read_stat
from hpcbench.storage.clock import file_age_s, now_text
from hpcbench.storage.json_files import create_json, read_json
from hpcbench.storage.paths import SuitePaths

logger = logging.getLogger(__name__)

CLAIM_PATIENCE_S = 120.0
CLAIM_STALE_S = 900.0
"""A claim from another host, where nobody can be asked, is given up after this long without a call of the scheduler."""
POLL_S = 0.1
POLL_FAR_S = 1.0
"""Of another host's claim only the age is known, and asking that makes a file."""


@contextmanager
def claim_suite(paths: SuitePaths) -> Iterator[None]:
    """Keep other submits of the same suite out while this one works.

    Raises:
        PlanError: another submit held the suite for two minutes.
    """
    mine = _claim_value()
    deadline = time.monotonic() + CLAIM_PATIENCE_S
    while not create_json(paths.claim, mine):
        other = read_json(paths.claim)
        if _is_stale(paths.claim, other):
            _drop_claim(paths.claim, other)
            continue
        if time.monotonic() > deadline:
            holder = "another process" if other is None else f"process {other.get('pid')} on {other.get('host')}"
            raise PlanError(
                f"{paths.folder}: {holder} is submitting this suite",
                hint=f"wait for it; if it is gone for good, delete {paths.claim}",
            )
        time.sleep(POLL_S if _is_of_this_host(other) else POLL_FAR_S)
    try:
        yield
    finally:
        _drop_claim(paths.claim, mine)


def keep_claim(paths: SuitePaths) -> None:
    """Say that this submit still works, before each call of the scheduler.

    Raises:
        PlanError: the claim is another submit's by now.
    """
    found = read_json(paths.claim)
    if found is None or (found.get("host"), found.get("pid")) != (socket.gethostname(), os.getpid()):
        raise PlanError(
            f"{paths.folder}: another submit has taken over", hint="hpcbench status shows what is submitted"
        )
    os.utime(paths.claim)


def _claim_value() -> dict[str, object]:
    stat = read_stat(os.getpid())
    return {
        "host": socket.gethostname(),
        "pid": os.getpid(),
        # Told apart from a later process with the same pid; unknown where there is no /proc.
        "process_start": None if stat is None else stat.start_ticks,
        "at": now_text(),
        "token": secrets.token_hex(8),
    }


def _is_stale(path: Path, claim: Mapping[str, object] | None) -> bool:
    """Say whether a claim's owner is gone: its process on this host has ended, or it was not touched for long."""
    if claim is not None and _is_of_this_host(claim):
        return not _is_running(claim)
    age_s = file_age_s(path)
    return age_s is not None and age_s > CLAIM_STALE_S


def _is_of_this_host(claim: Mapping[str, object] | None) -> bool:
    return claim is not None and claim.get("host") == socket.gethostname()


def _is_running(claim: Mapping[str, object]) -> bool:
    """Say whether the process of a claim of this host lives."""
    pid = claim.get("pid")
    if not isinstance(pid, int):
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        # Another user's: the same pid, or the same person's other account.
        logger.debug("process %s may not be signalled", pid)
    stat, start = read_stat(pid), claim.get("process_start")
    return stat is None or start is None or stat.start_ticks == start


def _drop_claim(path: Path, claim: Mapping[str, object] | None) -> None:
    """Remove a claim if it is still the one that was read; renaming first lets only one process win."""
    aside = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}.dropped")
    try:
        path.rename(aside)
    except FileNotFoundError:
        return
    found = read_json(aside)
    foreign = found is not None and claim is not None and found.get("token") != claim.get("token")
    # Somebody else's fresh claim is put back.
    if foreign and not create_json(path, found):
        logger.debug("%s was claimed again meanwhile", path)
    aside.unlink(missing_ok=True)
