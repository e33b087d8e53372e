"""Who may submit a suite: nobody waits for itself, for a process that is gone, or by a clock that is wrong."""

from __future__ import annotations

import os
import socket
import time
from pathlib import Path

import pytest

from hpcbench.errors import PlanError
from hpcbench.storage.json_files import read_json, write_json
from hpcbench.storage.paths import SuitePaths
from hpcbench.submit import suite_claim
from hpcbench.submit.suite_claim import CLAIM_STALE_S, claim_suite, keep_claim
from tests.unit.storage.test_json_files import link_with_a_lost_answer


@pytest.fixture
def paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SuitePaths:
    monkeypatch.setattr(suite_claim, "CLAIM_PATIENCE_S", 0.0)
    monkeypatch.setattr(suite_claim, "POLL_FAR_S", 0.0)
    found = SuitePaths(tmp_path, "tuners")
    found.submissions.mkdir(parents=True)
    return found


def leave(paths: SuitePaths, *, age_s: float = 0.0, **claim: object) -> None:
    """Leave another process's claim that was touched so long ago."""
    write_json(paths.claim, {"token": "other", "at": "", **claim})
    moment = paths.claim.stat().st_mtime - age_s
    os.utime(paths.claim, (moment, moment))


def test_a_claim_whose_answer_was_lost_is_ones_own(paths: SuitePaths, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "link", link_with_a_lost_answer)
    with claim_suite(paths):
        keep_claim(paths)
    assert not paths.claim.exists()


def test_two_do_not_hold_a_suite(paths: SuitePaths) -> None:
    holder = f"process {os.getpid()} on .* is submitting this suite"
    with claim_suite(paths), pytest.raises(PlanError, match=holder), claim_suite(paths):
        pass


def test_a_pid_that_was_used_again_holds_nothing(paths: SuitePaths) -> None:
    with claim_suite(paths):
        mine = read_json(paths.claim) or {}
    leave(paths, **{**mine, "process_start": mine["process_start"] - 1, "token": "other"})
    with claim_suite(paths):
        keep_claim(paths)


def test_a_claim_that_does_not_say_when_its_process_began_goes_by_the_pid(paths: SuitePaths) -> None:
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
        keep_claim(paths)
    assert list(paths.submissions.iterdir()) == []
