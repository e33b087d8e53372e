"""Who may submit a suite: nobody waits for itself, for a process that is gone, or by a clock that is wrong."""

from __future__ import annotations

import os
import socket
import time
from functools import partial
from pathlib import Path

import pytest

from hpcbench.errors import PlanError
from hpcbench.storage.json_files import read_json, write_json
from hpcbench.storage.paths import SuitePaths
from hpcbench.submit.suite_claim import CLAIM_STALE_S, renew_claim
from hpcbench.submit.suite_claim import claim_suite as claim_suite_patiently
from tests.unit.storage.test_json_files import link_with_a_lost_answer

claim_suite = partial(claim_suite_patiently, patience_s=0.0, poll_far_s=0.0)


@pytest.fixture
def paths(tmp_path: Path) -> SuitePaths:
    found = SuitePaths(tmp_path, "tuners")
    found.submissions.mkdir(parents=True)
    return found


def leave(paths: SuitePaths, *, age_s: float = 0.0, **claim: object) -> None:
    """Leave another process's claim that was touched so long ago."""
    write_json(paths.claim, {"token": "other", "at": "", **claim})
    moment = paths.claim.stat().st_mtime - age_s
    os.utime(paths.claim, (moment, moment))


def test_a_claim_is_held_although_the_answer_to_its_link_was_lost(
    paths: SuitePaths, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "link", link_with_a_lost_answer)
    with claim_suite(paths):
        renew_claim(paths)
    assert not paths.claim.exists()


def test_a_second_submit_of_a_held_suite_is_refused(paths: SuitePaths) -> None:
    holder = f"process {os.getpid()} on .* is submitting this suite"
    with claim_suite(paths), pytest.raises(PlanError, match=holder), claim_suite(paths):
        pass


def test_a_later_process_with_the_holders_pid_does_not_hold_the_claim(paths: SuitePaths) -> None:
    with claim_suite(paths):
        mine = read_json(paths.claim) or {}
    leave(paths, **{**mine, "process_start": mine["process_start"] - 1, "token": "other"})
    with claim_suite(paths):
        renew_claim(paths)


def test_a_claim_without_a_start_time_is_held_while_its_pid_exists(paths: SuitePaths) -> None:
    leave(paths, host=socket.gethostname(), pid=os.getpid())
    with pytest.raises(PlanError), claim_suite(paths):
        pass


@pytest.mark.parametrize("skew_s", [-2 * CLAIM_STALE_S, 0.0, 2 * CLAIM_STALE_S])
def test_another_hosts_claim_is_judged_by_the_file_servers_clock(
    paths: SuitePaths, monkeypatch: pytest.MonkeyPatch, skew_s: float
) -> None:
    real = time.time
    monkeypatch.setattr(time, "time", lambda: real() + skew_s)
    leave(paths, host="login2", pid=1, age_s=CLAIM_STALE_S / 2)
    with pytest.raises(PlanError, match="process 1 on login2"), claim_suite(paths):
        pass
    leave(paths, host="login2", pid=1, age_s=CLAIM_STALE_S + 60)
    with claim_suite(paths):
        renew_claim(paths)
    assert list(paths.submissions.iterdir()) == []
