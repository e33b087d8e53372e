"""What is concluded when Slurm's commands fail, are missing, or forbid arrays: nothing that they did not say."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from hpcbench.errors import HpcbenchError, SchedulerError, SubmitError
from hpcbench.scheduler.slurm.client import REPEAT_AFTER_S, SlurmClient
from hpcbench.scheduler.slurm.commands import run_command
from hpcbench.scheduler.slurm.scheduler import SlurmScheduler
from hpcbench.scheduler.slurm.script import read_failure, render_script
from hpcbench.scheduler.slurm.states import parse_indices
from hpcbench.schemas.cluster_profile import ClusterProfile
from hpcbench.schemas.submission import Submission
from hpcbench.storage.paths import SuitePaths
from tests.support.fake_commands import FakeCommands
from tests.support.job_cases import submission

SLURMDBD_DOWN = "sacct: error: slurm_persist_conn_open: failed to open persistent connection to slurmdbd:6819"
NO_ACCOUNTING = "Slurm accounting storage is disabled"


def scheduler(commands: FakeCommands | None = None, **profile: object) -> SlurmScheduler:
    client = SlurmClient() if commands is None else SlurmClient(run=commands)
    return SlurmScheduler(ClusterProfile.model_validate(profile), Path("/logs"), client)


def test_a_submission_is_not_given_up_while_accounting_is_down() -> None:
    down = FakeCommands({"squeue": "", "sacct": SchedulerError(SLURMDBD_DOWN)})
    with pytest.raises(SchedulerError, match="accounting did not answer"):
        scheduler(down).find(["key"])
    off = FakeCommands({"squeue": "", "sacct": SchedulerError(NO_ACCOUNTING)})
    assert scheduler(off).find(["key"]) == {}


@pytest.mark.parametrize(("message", "failed"), [(SLURMDBD_DOWN, True), (NO_ACCOUNTING, False)])
def test_accounting_that_is_down_differs_from_accounting_that_is_off(message: str, *, failed: bool) -> None:
    commands = FakeCommands({"squeue": "", "sacct": SchedulerError(message)})
    answer = scheduler(commands).query([submission(scheduler_id="7", state="submitted")])
    assert (answer.history_known, answer.history_failed) == (False, failed)


def test_the_evals_of_an_array_are_released_with_one_message() -> None:
    # scontrol reports this of some, and has released the others.
    commands = FakeCommands({"scontrol": SchedulerError("scontrol: exit code 1: 7_0: Job is no longer pending")})
    scheduler(commands).release(["7_0", "7_1", "9", "7_5", *(f"8_{index}" for index in range(2000))])
    assert commands.calls == [["scontrol", "update", "JobId=7_[0-1,5],9,8_[0-1999]", "Dependency="]]


@pytest.mark.parametrize("message", ["scontrol: no answer within 90 s", "scontrol: exit code 1: Socket timed out"])
def test_a_release_stops_at_a_controller_that_does_not_answer(message: str) -> None:
    commands = FakeCommands({"scontrol": SchedulerError(message)})
    with pytest.raises(SchedulerError):
        scheduler(commands).release([str(number) for number in range(2000)])
    assert len(commands.calls) == 1


@pytest.mark.parametrize("count", [1, 2000])
def test_a_query_is_one_squeue_and_one_sacct_whatever_the_number_of_jobs(count: int) -> None:
    commands = FakeCommands({"squeue": "", "sacct": ""})
    single = [submission(key=f"k{n}", scheduler_id=str(9_000_000 + n), state="submitted") for n in range(count)]
    scheduler(commands).query(single)
    assert commands.programs == ["squeue", "sacct"]
    assert max(len(word) for word in commands.calls[1]) < 128 * 1024


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
def test_a_cluster_is_asked_for_its_name_only_where_it_has_none_of_the_jobs(
    seen: str, elsewhere: dict[str, str], *, asked_for_name: bool
) -> None:
    commands = FakeCommands({"squeue": seen, "sacct": "", "scontrol": "ClusterName = testbed"})
    # Two clusters may have given one id.
    answer = scheduler(commands).query([on("testbed", "mine"), on("other", "theirs"), on(None, "old", "9")])
    assert answer.elsewhere == elsewhere
    assert commands.programs == ["squeue", "sacct", *(["scontrol"] if asked_for_name else [])]


def test_a_client_reads_each_fact_about_the_cluster_once() -> None:
    commands = FakeCommands({"scontrol": "ClusterName = testbed", "sinfo": "", "sacctmgr": ""})
    client = SlurmClient(run=commands)
    for _ in range(2):
        assert client.config == {"ClusterName": "testbed"}
        assert (client.node_groups, client.partitions) == ((), {})
        client.entitlements(needs_rights=True)
    assert commands.programs == ["scontrol", "sinfo", "scontrol"]


def test_a_fact_that_cannot_be_read_is_empty() -> None:
    failure = SchedulerError("scontrol: no answer within 30 s")
    client = SlurmClient(run=FakeCommands(dict.fromkeys(("scontrol", "sinfo", "sacctmgr"), failure)))
    assert (client.config, client.node_groups, client.partitions, client.rights) == ({}, (), {}, None)


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
def test_a_query_is_repeated_where_the_failure_may_be_over_in_a_moment(words: str, took_s: float, tries: int) -> None:
    now_s = 0.0
    commands = FakeCommands()

    def squeue() -> str:
        nonlocal now_s
        now_s += took_s
        if len(commands.calls) < 2:
            raise SchedulerError(words)
        return "answer"

    def sleep(seconds: float) -> None:
        nonlocal now_s
        now_s += seconds

    commands.outputs = {"squeue": squeue}
    client = SlurmClient(run=commands, clock=lambda: now_s, sleep=sleep)
    if tries == 1:
        with pytest.raises(SchedulerError, match=re.escape(words)):
            client.query(["squeue"])
    else:
        assert client.query(["squeue"]) == "answer"
        assert now_s == 2 * took_s + REPEAT_AFTER_S
    assert len(commands.calls) == tries


def test_a_banner_does_not_count_as_a_job() -> None:
    banner = "*** Welcome to the cluster ***\nMaintenance on 24 December, 8 to 12\n\n"
    commands = FakeCommands({"squeue": f"{banner}101_0\n101_17\n 102\n103+1\n"})
    assert scheduler(commands, max_submitted=10).room_left() == 6


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
def test_how_large_an_array_may_be(profile: dict[str, object], config: str, size: int) -> None:
    assert scheduler(FakeCommands({"scontrol": config}), **profile).max_array_size() == size


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
    commands = FakeCommands({"squeue": "", "sacct": ""})
    monkeypatch.setenv("SLURM_CLUSTERS", "far")
    scheduler(commands).query([submission(scheduler_id="7", state="submitted")])
    assert [command[1] for command in commands.calls if command[0] == "sacct"] == ["--clusters=far"]
