"""A claim is freed only if it is the one that was seen, and names its holder in the form of any version."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import pytest

from hpcbench.processes.process_tree import (
    ProcessIdentity,
    identify_process,
    is_alive,
    is_hidden,
    read_stat,
    send_signal,
    this_process,
)
from hpcbench.storage.claims import drop_claim, holder_fields, holder_of, is_abandoned, replace_claim
from hpcbench.storage.json_files import create_json, read_json, write_json


def test_a_claim_that_was_seen_is_removed(tmp_path: Path) -> None:
    claim = tmp_path / "claim.json"
    create_json(claim, {"token": "a"})
    assert drop_claim(claim, {"token": "a"})
    assert list(tmp_path.iterdir()) == []


def test_a_claim_that_took_the_place_of_the_seen_one_is_put_back(tmp_path: Path) -> None:
    claim = tmp_path / "claim.json"
    create_json(claim, {"token": "b"})
    assert not drop_claim(claim, {"token": "a"})
    assert read_json(claim) == {"token": "b"}
    assert list(tmp_path.iterdir()) == [claim]


def test_a_claim_that_replaced_another_is_held(tmp_path: Path) -> None:
    claim = tmp_path / "claim.json"
    create_json(claim, {"token": "a"})
    assert replace_claim(claim, {"token": "b"})


def test_a_process_finds_itself_in_its_own_claim(tmp_path: Path) -> None:
    claim = tmp_path / "claim.json"
    create_json(claim, holder_fields())
    assert holder_of(read_json(claim)) == this_process()
    assert holder_of({"process": this_process().model_dump()}) == this_process()
    assert not is_abandoned(claim, this_process(), silence_s=0.0)


@pytest.mark.parametrize("value", [None, {}, {"host": "a"}, {"host": "a", "pid": "x"}, {"process": 3}])
def test_a_damaged_claim_names_no_holder(value: dict[str, object] | None) -> None:
    assert holder_of(value) is None


def test_a_claim_of_another_host_is_abandoned_once_it_was_not_touched_for_long(tmp_path: Path) -> None:
    claim, holder = tmp_path / "claim.json", ProcessIdentity(host="login2", pid=1, start_ticks=1)
    write_json(claim, {})
    assert not is_abandoned(claim, holder, silence_s=60.0)
    os.utime(claim, (0, 0))
    assert is_abandoned(claim, holder, silence_s=60.0)


def test_this_process_lives_and_is_not_hidden() -> None:
    assert is_alive(this_process())
    assert not is_hidden(os.getpid())


def test_a_claim_of_a_holder_that_only_waits_to_be_reaped_is_abandoned(tmp_path: Path) -> None:
    child = subprocess.Popen(["sleep", "600"])
    try:
        holder = identify_process(child.pid)
        assert holder is not None
        assert not is_abandoned(tmp_path / "claim.json", holder, silence_s=0.0)
    finally:
        child.kill()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    stat = read_stat(child.pid)
    assert stat is not None
    assert stat.state == "Z"
    assert is_abandoned(tmp_path / "claim.json", holder, silence_s=0.0)
    child.wait()


def test_a_process_that_may_be_another_one_gets_no_signal() -> None:
    child = subprocess.Popen(["sleep", "600"])
    try:
        own = identify_process(child.pid)
        assert own is not None
        send_signal(own.model_copy(update={"start_ticks": None}), signal.SIGTERM)
        send_signal(own, signal.SIGKILL)
        assert child.wait() == -signal.SIGKILL
    finally:
        child.kill()
        child.wait()
