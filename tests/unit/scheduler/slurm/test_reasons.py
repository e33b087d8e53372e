"""Every reason that Slurm gives for a pending job has words, and those that never clear by themselves say what to do."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpcbench.scheduler.slurm.reasons import REASONS, explain_reason, read_reason
from hpcbench.schemas.collection import JobView
from hpcbench.schemas.states import JobState
from hpcbench.status.explain import explain
from tests.support.places import RECORDED

RECORDED_FILES = RECORDED / "job-reasons-22.05.8.txt"
SLURMS_OWN = [*RECORDED_FILES.read_text(encoding="utf-8").split(), "Constraints", "ReservationInvalid"]
"""All words of 22.05.8's libslurm and squeue(1), and two newer ones."""


@pytest.mark.parametrize("word", SLURMS_OWN)
def test_every_word_of_slurm_is_explained(word: str) -> None:
    text = explain_reason(word)
    assert text.endswith(f" ({word})")
    assert len(text.split()) > 2
    assert "None" not in text


def test_no_word_of_ours_is_unknown_to_slurm() -> None:
    sentences = {word for word in REASONS if " " in word}
    assert set(REASONS) - sentences <= set(SLURMS_OWN)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("(Priority)", "waits behind jobs of higher priority (Priority)"),
        ("ReqNodeNotAvail, UnavailableNodes:gpu[1-2]", "nodes that it needs are down, drained or do not answer: gpu[1-2] (ReqNodeNotAvail)"),
        ("(ReqNodeNotAvail,_UnavailableNodes:gpu[1-2])", "nodes that it needs are down, drained or do not answer: gpu[1-2] (ReqNodeNotAvail)"),
        ("ReqNodeNotAvail, May be reserved for other job", "the nodes it needs are not available: may be reserved for other job (ReqNodeNotAvail)"),
        ("ReqNodeNotAvail, UnavailableNodes:", "the nodes it needs are not available (ReqNodeNotAvail)"),
        ("launch failed requeued held", "could not be launched and is held (launch failed requeued held)"),
        ("launch_failed_requeued_held", "could not be launched and is held (launch failed requeued held)"),
        (
            "Nodes required for job are DOWN, DRAINED or reserved for jobs in higher priority partitions",
            "waits for nodes that are down, drained or reserved for jobs of higher priority (Nodes required for job are DOWN)",
        ),
        ("Reservation course was deleted", "its reservation is gone, so it can never start (Reservation course was deleted)"),
        (
            "Job's account not permitted to use this partition (gpu allows lab not root)",
            "its account may not use the partition, so it can never start (gpu allows lab not root)",
        ),
        (
            "(Job's_QOS_not_permitted_to_use_this_partition_(gpu_denies_long_including_long))",
            "its QOS is not allowed in the partition or for your account, so it can never start (gpu denies long including long)",
        ),
        ("QOSMaxGRESPerUser", "with it, you would take more GPUs than your QOS allows you (QOSMaxGRESPerUser)"),
        ("QOSMaxWallDurationPerJobLimit", "asks for more time than your QOS allows for one job, so it can never start (QOSMaxWallDurationPerJobLimit)"),
        ("QOSMaxCpuPerNode", "asks for more CPUs than your QOS allows on a node, so it can never start (QOSMaxCpuPerNode)"),
        ("AssocMaxCpuMinutesPerJobLimit", "asks for more CPU minutes than your account allows for one job, so it can never start (AssocMaxCpuMinutesPerJobLimit)"),
        ("AssocGrpMemLimit", "with it, all jobs of your account together would take more memory than they may (AssocGrpMemLimit)"),
        ("AssocGrpCPURunMinutesLimit", "with it, all jobs of your account together would take more CPU minutes at once than they may (AssocGrpCPURunMinutesLimit)"),
        ("AssocGrpGRESMinutes", "your account has not enough GPU minutes left for it (AssocGrpGRESMinutes)"),
        ("QOSGrpWallLimit", "your QOS has not enough time left for it (QOSGrpWallLimit)"),
        ("QOSMaxSubmitJobPerUserLimit", "with it, you would take more jobs in the queue than your QOS allows you (QOSMaxSubmitJobPerUserLimit)"),
        ("MaxGRESPerAccount", "with it, your account would take more GPUs than the QOS allows it (MaxGRESPerAccount)"),
        ("QOSMinCpuNotSatisfied", "asks for less than the least that your QOS takes (CPUs), so it can never start (QOSMinCpuNotSatisfied)"),
        ("SomethingNew", "SomethingNew"),
        ("SomethingNew, with details", "SomethingNew, with details"),
        ("None", ""),
        ("", ""),
    ],
)  # fmt: skip
def test_pending_reasons_are_said_in_words(text: str, words: str) -> None:
    assert explain_reason(text) == words


STUCK = {
    "AccountNotAllowed", "BadConstraints", "BurstBufferOperation", "DeadLine", "DependencyNeverSatisfied", "FrontEndDown",
    "InvalidAccount", "InvalidQOS", "JobHeldAdmin", "JobHeldUser", "JobHoldMaxRequeue", "JobLaunchFailure",
    "MaxMemPerLimit", "NodeDown", "PartitionConfig", "PartitionDown", "PartitionInactive", "PartitionNodeLimit",
    "PartitionTimeLimit", "QOSNotAllowed", "ReservationDeleted", "ReservationInvalid", "SystemFailure",
}  # fmt: skip


@pytest.mark.parametrize("word", SLURMS_OWN)
def test_what_never_clears_by_itself_says_what_to_do(word: str) -> None:
    own_request = ("PerJob" in word or "PerNode" in word or word.startswith("QOSMin")) and "PerUser" not in word
    budget = "Grp" in word and ("Minutes" in word or "Wall" in word) and "Run" not in word
    reason = read_reason(word)
    assert reason is not None
    assert reason.is_stuck == (word in STUCK or own_request or budget)


def test_only_nodes_that_are_named_need_a_person() -> None:
    for text, stuck in (
        ("ReqNodeNotAvail, UnavailableNodes:gpu1", True),
        ("ReqNodeNotAvail, UnavailableNodes:", False),
        ("ReqNodeNotAvail, Reserved for maintenance", False),
        ("ReqNodeNotAvail", False),
    ):
        reason = read_reason(text)
        assert reason is not None
        assert reason.is_stuck == stuck


@given(st.text())
def test_no_text_stops_it(text: str) -> None:
    explain_reason(text)
    read_reason(text)


def pending(reason: str, hint: str = "", command: str = "") -> JobView:
    return JobView(
        suite="s",
        experiment="e 1",
        job="train",
        state=JobState.PENDING,
        folder=Path("e"),
        scheduler_id="7_1",
        reason=reason,
        hint=hint,
        command=command,
    )


def test_why_tells_how_to_take_a_stuck_job_back() -> None:
    hint = "lower requirements.time, or name another partition"
    text = explain(pending(reason="asks for more time than the partition allows", hint=hint))
    assert text.splitlines()[2:] == [
        "  cause: asks for more time than the partition allows",
        f"  hint: {hint}",
        "  next: hpcbench cancel 's/e 1/train'",
        "  next: hpcbench submit CONFIG --only 'e 1' --retry cancelled  (after changing it)",
    ]


def test_why_releases_a_held_job_and_leaves_a_waiting_one_alone() -> None:
    held = explain(pending(reason="is held", hint="release the job", command="scontrol release 7_1"))
    assert held.splitlines()[-1] == "  next: scontrol release 7_1"
    waiting = explain(pending(reason="waits for free resources"))
    assert waiting.splitlines()[-1] == "  next: hpcbench status 's/e 1'"
