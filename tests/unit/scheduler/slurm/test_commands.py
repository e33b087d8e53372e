"""What is concluded when Slurm's commands fail, are missing, or forbid arrays: nothing that they did not say."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path

import pytest

from hpcbench.errors import HpcbenchError, SchedulerError, SubmitError
from hpcbench.scheduler.slurm import commands
from hpcbench.scheduler.slurm import scheduler as slurm
from hpcbench.scheduler.slurm.commands import ask, run_command
from hpcbench.scheduler.slurm.scheduler import SlurmScheduler
from hpcbench.scheduler.slurm.script import read_failure, render_script
from hpcbench.scheduler.slurm.states import parse_indices
from hpcbench.schemas.cluster_profile import ClusterProfile
from hpcbench.schemas.submission import Submission
from hpcbench.storage.paths import SuitePaths
from tests.support.job_cases import submission

SLURMDBD_DOWN = "sacct: error: slurm_persist_conn_open: failed to open persistent connection to slurmdbd:6819"
NO_ACCOUNTING = "Slurm accounting storage is disabled"


def answer(monkeypatch: pytest.MonkeyPatch, **texts: str | SchedulerError) -> None:
    """Let Slurm's commands print these texts, or fail."""

    def run(command: Sequence[str], **_: object) -> str:
        text = texts[command[0]]
        if isinstance(text, SchedulerError):
            raise text
        return text

    monkeypatch.setattr(commands, "run_command", run)


def scheduler(**profile: object) -> SlurmScheduler:
    return SlurmScheduler(ClusterProfile.model_validate(profile), Path("/logs"))


def test_a_submission_is_not_given_up_while_accounting_is_down(monkeypatch: pytest.MonkeyPatch) -> None:
    answer(monkeypatch, squeue="", sacct=SchedulerError(SLURMDBD_DOWN))
    with pytest.raises(SchedulerError, match="accounting did not answer"):
        scheduler().find(["key"])
    answer(monkeypatch, squeue="", sacct=SchedulerError(NO_ACCOUNTING))
    assert scheduler().find(["key"]) == {}


def test_accounting_that_is_down_is_told_from_accounting_that_is_off(monkeypatch: pytest.MonkeyPatch) -> None:
    found = {}
    for words in (SLURMDBD_DOWN, NO_ACCOUNTING):
        answer(monkeypatch, squeue="", sacct=SchedulerError(words))
        found[words] = scheduler().query([submission(scheduler_id="7", state="submitted")])
    assert [(a.history_known, a.history_failed) for a in found.values()] == [(False, True), (False, False)]


def test_the_evals_of_an_array_are_released_with_one_message(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Sequence[str]] = []

    def run(command: Sequence[str], **_: object) -> str:
        asked.append(command)
        # Of some it says this, and has released the others.
        raise SchedulerError("scontrol: exit code 1: 7_0: Job is no longer pending execution")

    monkeypatch.setattr(slurm, "run_command", run)
    scheduler().release(["7_0", "7_1", "9", "7_5", *(f"8_{index}" for index in range(2000))])
    assert asked == [["scontrol", "update", "JobId=7_[0-1,5],9,8_[0-1999]", "Dependency="]]


@pytest.mark.parametrize("words", ["scontrol: no answer within 90 s", "scontrol: exit code 1: Socket timed out"])
def test_a_controller_that_is_away_is_not_asked_to_release_the_rest(
    words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Sequence[str]] = []

    def run(command: Sequence[str], **_: object) -> str:
        asked.append(command)
        raise SchedulerError(words)

    monkeypatch.setattr(slurm, "run_command", run)
    with pytest.raises(SchedulerError):
        scheduler().release([str(number) for number in range(2000)])
    assert len(asked) == 1


@pytest.mark.parametrize("count", [1, 2000])
def test_a_look_is_one_squeue_and_one_sacct_whatever_the_number_of_jobs(
    count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    called: list[Sequence[str]] = []

    def run(command: Sequence[str], **_: object) -> str:
        called.append(command)
        return ""

    monkeypatch.setattr(commands, "run_command", run)
    single = [submission(key=f"k{n}", scheduler_id=str(9_000_000 + n), state="submitted") for n in range(count)]
    scheduler().query(single)
    assert [command[0] for command in called] == ["squeue", "sacct"]
    assert max(len(word) for word in called[1]) < 128 * 1024


def on(cluster: str | None, key: str, job_id: str = "7") -> Submission:
    return submission(key=key, scheduler_id=job_id, state="submitted", cluster_name=cluster)


def row(key: str, job_id: str = "7") -> str:
    return "\n".join(f"{job_id}_{n}|{job_id}|{n}|PENDING|N/A|None|(null)|{key}" for n in range(2))


@pytest.mark.parametrize(
    ("seen", "asked_for_name", "elsewhere"),
    [
        # One job that is seen says whose queue this is.
        (row("mine"), False, {"theirs": "other"}),
        (row("theirs"), False, {"mine": "testbed"}),
        (row("mine") + "\n" + row("theirs"), False, {}),
        # An id alone says nothing.
        (row("somebody's"), True, {"theirs": "other"}),
        ("", True, {"theirs": "other"}),
    ],
)
def test_a_cluster_is_asked_for_its_name_only_where_it_knows_no_job(
    seen: str,
    elsewhere: dict[str, str],
    *,
    asked_for_name: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    called: list[str] = []
    monkeypatch.setenv("SLURM_CONF", "/nowhere/slurm.conf")

    def run(command: Sequence[str], **_: object) -> str:
        called.append(command[0])
        return {"squeue": seen, "sacct": "", "scontrol": "ClusterName = testbed"}[command[0]]

    monkeypatch.setattr(commands, "run_command", run)
    slurm.read_config.cache_clear()
    try:
        # Two clusters may have given one id.
        answer = scheduler().query([on("testbed", "mine"), on("other", "theirs"), on(None, "old", "9")])
    finally:
        slurm.read_config.cache_clear()
    assert answer.elsewhere == elsewhere
    assert ("scontrol" in called) is asked_for_name
    assert called[:2] == ["squeue", "sacct"]


@pytest.mark.parametrize(
    ("words", "took_s", "tries"),
    [
        ("slurm_load_jobs error: Socket timed out on send/recv operation", 10, 2),
        ("slurm_load_jobs error: Zero Bytes were transmitted or received", 0, 2),
        ("Unable to contact slurm controller (connect failure)", 0, 2),
        # It has tried for long already: the controller is away.
        ("Unable to contact slurm controller (connect failure)", 10, 1),
        ("Invalid user: nobody", 0, 1),
    ],
)
def test_a_question_is_asked_twice_where_a_moment_may_mend_it(
    words: str, took_s: float, tries: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    now_s = 0.0
    called: list[Sequence[str]] = []

    def run(command: Sequence[str], **_: object) -> str:
        nonlocal now_s
        called.append(command)
        now_s += took_s
        if len(called) < 2:
            raise SchedulerError(words)
        return "answer"

    def sleep(seconds: float) -> None:
        nonlocal now_s
        now_s += seconds

    monkeypatch.setattr(commands, "run_command", run)
    monkeypatch.setattr("hpcbench.scheduler.slurm.commands.time.monotonic", lambda: now_s)
    monkeypatch.setattr("hpcbench.scheduler.slurm.commands.time.sleep", sleep)
    if tries == 1:
        with pytest.raises(SchedulerError, match=re.escape(words)):
            ask(["squeue"])
    else:
        assert ask(["squeue"]) == "answer"
        assert now_s == 2 * took_s + commands.ASK_AGAIN_AFTER_S
    assert len(called) == tries


def test_what_is_no_job_takes_no_room(monkeypatch: pytest.MonkeyPatch) -> None:
    banner = "*** Welcome to the cluster ***\nMaintenance on 24 December, 8 to 12\n\n"
    answer(monkeypatch, squeue=f"{banner}101_0\n101_17\n 102\n103+1\n")
    assert scheduler(max_submitted=10).room_left() == 6


@pytest.mark.parametrize(
    ("code", "text", "kind", "words"),
    [
        (1, "sbatch: error: Batch job submission failed: Invalid qos", SubmitError, "failed: Invalid qos"),
        (1, "this site wants an account", SubmitError, "wants an account"),
        (1, "", SchedulerError, "without a word"),
        (124, "", SchedulerError, "no answer within 90 s"),
        (137, "", SchedulerError, "was killed"),
        (-9, "sbatch: Job submitted", SchedulerError, "was killed"),
    ],
)
def test_only_an_sbatch_that_ended_by_itself_has_refused(
    code: int, text: str, kind: type[HpcbenchError], words: str
) -> None:
    error = read_failure(code, text)
    assert type(error) is kind
    assert words in error.message


def test_a_cancel_that_slurm_did_not_take_is_an_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "scancel").write_text("#!/bin/sh\necho Unable to contact slurm controller >&2; exit 8\n")
    (tmp_path / "scancel").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SchedulerError, match="Unable to contact"):
        scheduler().cancel(["7_0"])


def test_a_machine_without_sbatch_refuses_and_does_not_crash(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SubmitError, match="not found on this machine"):
        scheduler().submit(submission(), None)


@pytest.mark.parametrize(
    ("profile", "config", "size"),
    [
        ({}, "MaxArraySize            = 1001", 1001),
        ({}, "MaxArraySize            = 0", 1),
        ({"arrays": False}, "MaxArraySize            = 1001", 1),
        ({"release_evals": False}, "MaxArraySize            = 1001", 10),
        ({"max_array_size": 50}, "", 50),
    ],
)
def test_how_large_an_array_may_be(
    monkeypatch: pytest.MonkeyPatch, profile: dict[str, object], config: str, size: int
) -> None:
    answer(monkeypatch, scontrol=config)
    assert scheduler(**profile).max_array_size() == size


def test_a_single_job_has_no_array_and_waits_with_afterok() -> None:
    single = submission(array=False, after_key="parent", elements={0: submission().elements[0]})
    text = render_script(single, profile=ClusterProfile(), paths=SuitePaths(Path("/logs"), "tuners"), after_id="7")
    assert "--array" not in text
    assert "#SBATCH --dependency=afterok:7" in text


def test_a_digit_that_is_no_number_is_not_an_index() -> None:
    assert parse_indices("\u00b2") == [None]


def test_options_in_the_users_environment_filter_no_question_of_ours(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    shim = tmp_path / "squeue"
    shim.write_text("#!/bin/sh\nenv\n")
    shim.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    for name in ("SQUEUE_PARTITION", "SACCT_FORMAT", "SCANCEL_STATE", "SINFO_ALL", "SLURM_CONF"):
        monkeypatch.setenv(name, "x")
    seen = {line.partition("=")[0] for line in run_command(["squeue"]).splitlines()}
    assert {name for name in seen if name.startswith(("SQUEUE", "SACCT", "SCANCEL", "SINFO", "SLURM"))} == {
        "SLURM_CONF",
        "SLURM_BITSTR_LEN",
        "SLURM_TIME_FORMAT",
    }


def test_accounting_is_asked_about_the_cluster_that_all_other_commands_talk_to(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Sequence[str]] = []

    def run(command: Sequence[str], **_: object) -> str:
        asked.append(command)
        return ""

    monkeypatch.setattr(commands, "run_command", run)
    monkeypatch.setenv("SLURM_CLUSTERS", "far")
    scheduler().query([submission(scheduler_id="7", state="submitted")])
    assert [command[1] for command in asked if command[0] == "sacct"] == ["--clusters=far"]
