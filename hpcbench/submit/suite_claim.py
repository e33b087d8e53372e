"""The claim on a suite: one submit at a time, on any host, without file locks; taken over once its holder is gone."""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager

from hpcbench.errors import PlanError
from hpcbench.invocation import quoted
from hpcbench.processes.process_tree import ProcessIdentity, is_here, is_hidden, this_process
from hpcbench.storage.claims import drop_claim, holder_fields, holder_of, is_abandoned
from hpcbench.storage.clock import now_text
from hpcbench.storage.json_files import create_json, read_json
from hpcbench.storage.paths import SuitePaths

CLAIM_PATIENCE_S = 120.0
CLAIM_STALE_S = 900.0
"""A claim from another host is taken over after this long without a call of the scheduler."""
POLL_S = 0.1
POLL_FAR_S = 1.0
"""For a claim of another host, since each look at its age makes a file."""


@contextmanager
def claim_suite(
    paths: SuitePaths, *, patience_s: float = CLAIM_PATIENCE_S, poll_far_s: float = POLL_FAR_S
) -> Iterator[None]:
    """Keep other submits of the same suite out while this one works.

    Raises:
        PlanError: another submit held the suite for two minutes.
    """
    mine = {**holder_fields(), "at": now_text(), "token": secrets.token_hex(8)}
    deadline = time.monotonic() + patience_s
    while not create_json(paths.claim, mine):
        other = read_json(paths.claim)
        holder = holder_of(other)
        if _is_stale(paths, holder):
            drop_claim(paths.claim, other)
            continue
        if time.monotonic() > deadline:
            name = "another process" if holder is None else f"process {holder.pid} on {holder.host}"
            raise PlanError(
                f"{paths.folder}: {name} is submitting this suite",
                hint=f"wait for it; if it has ended, delete {paths.claim}",
            )
        time.sleep(POLL_S if holder is not None and is_here(holder) else poll_far_s)
    try:
        yield
    finally:
        drop_claim(paths.claim, mine)


def renew_claim(paths: SuitePaths) -> None:
    """Touch the claim before each call of the scheduler, so that other hosts see that this submit still works.

    Raises:
        PlanError: the claim is another submit's by now.
    """
    if holder_of(read_json(paths.claim)) != this_process():
        raise PlanError(
            f"{paths.folder}: another submit has taken over", hint=f"{quoted('status')} shows what is submitted"
        )
    os.utime(paths.claim)


def _is_stale(paths: SuitePaths, holder: ProcessIdentity | None) -> bool:
    # Two people may share a save directory, and neither may see the other's processes.
    if holder is not None and is_here(holder) and is_hidden(holder.pid):
        return False
    return is_abandoned(paths.claim, holder, silence_s=CLAIM_STALE_S)
