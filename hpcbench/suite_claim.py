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

from hpcbench.clock import now_text
from hpcbench.errors import PlanError
from hpcbench.jsonfile import create_json, read_json
from hpcbench.paths import SuitePaths

logger = logging.getLogger(__name__)

CLAIM_PATIENCE_S = 120.0
CLAIM_STALE_S = 900.0
"""A claim from another host, where nobody can be asked, is given up after this long."""


@contextmanager
def claim_suite(paths: SuitePaths) -> Iterator[None]:
    """Keep other submits of the same suite out while this one works.

    Raises:
        PlanError: another submit held the suite for two minutes.
    """
    mine = {"host": socket.gethostname(), "pid": os.getpid(), "at": now_text(), "token": secrets.token_hex(8)}
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
        time.sleep(0.1)
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


def _is_stale(path: Path, claim: Mapping[str, object] | None) -> bool:
    if claim is not None and claim.get("host") == socket.gethostname():
        try:
            os.kill(int(str(claim.get("pid"))), 0)
        except (ProcessLookupError, ValueError):
            return True
        except PermissionError:
            return False
        return False
    try:
        return time.time() - path.stat().st_mtime > CLAIM_STALE_S
    except OSError:
        return False


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
