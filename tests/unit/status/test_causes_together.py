"""`why`: jobs of one cause together, with the commands for all of them; the report's commands are the same."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest

from hpcbench.report import render
from hpcbench.report.cause_groups import group_jobs
from hpcbench.report.next_steps import next_steps
from hpcbench.schemas.cluster_profile import LOCAL
from hpcbench.schemas.collection import Collection, ExperimentView, JobView, SuiteView
from hpcbench.schemas.record import BAD_NODE, DISK_FULL, INPUTS_CHANGED, Cause
from hpcbench.schemas.states import FAILED_STATES, JobState
from hpcbench.status.explain import explain, explain_group
from tests.support import report_parts as parts

CAUSES = (
    None,
    "exit_code",
    "diverged",
    "bad_metrics",
    "no_metrics",
    "interrupted",
    DISK_FULL,
    BAD_NODE,
    INPUTS_CHANGED,
)


def job(name: str, state: JobState = JobState.FAILED, *, cause: str | None = "exit_code", reason: str = "") -> JobView:
    found = None if cause is None else Cause(type=cause, message=reason or "exit code 3", lines=("last words",))
    made = parts.make_job(name, "train", suite="qwen", state=state, cause=found)
    return replace(made, reason=reason or ("" if found is None else found.message))


def blocked(parent: JobView, name: str = "eval-arc") -> JobView:
    made = parts.make_job(parent.experiment, name, suite="qwen", cmd="eval", state=JobState.BLOCKED)
    return replace(made, parent=parent.ref, reason=f"its train job is {parent.state}")


def why(jobs: Sequence[JobView], everything: Sequence[JobView] | None = None) -> list[str]:
    return [explain_group(group) for group in group_jobs(jobs, jobs if everything is None else everything)]


def test_jobs_of_one_cause_are_explained_once_with_three_names() -> None:
    [text] = why([job(f"e{number}") for number in range(12)])
    assert text == (
        "failed, 12 jobs (ended without a result): qwen/e0/train, qwen/e1/train, qwen/e2/train and 9 more\n"
        "  cause: exit code 3\n"
        "  log of the first:\n"
        "    last words\n"
        "  next: hpcbench retry qwen --state failed\n"
        "  next: hpcbench submit CONFIG --only e0 --only e1 --only e2 --only e3 --only e4 --only e5 --only e6 --only e7 "
        "--only e8 --only e9 --only e10 --only e11 --force  (after changing its arguments or data)"
    )


def test_messages_that_differ_in_numbers_and_paths_are_one_cause() -> None:
    words = ("no space for 9.27 GiB in /scratch/a/b", "no space for 11.3 GiB in /scratch/c")
    [text] = why([job(f"e{number}", reason=reason) for number, reason in enumerate(words)])
    assert f"\n  cause of the first: {words[0]}\n" in text


@pytest.mark.parametrize(
    "other",
    [
        job("other", reason="no such file"),
        job("other", JobState.TIMEOUT),
        job("other", cause="diverged", reason="exit code 3"),
        replace(job("other"), submit_options=("--set", "max_attempts=3")),
    ],
)
def test_another_message_state_cause_or_command_is_another_group(other: JobView) -> None:
    assert len(why([job("a"), job("b"), other])) == 2


def test_what_a_job_blocks_is_told_with_it_at_any_distance() -> None:
    first, second = job("a"), job("b")
    below = [blocked(first, f"eval-{number}") for number in range(3)]
    farther = replace(blocked(first, "eval-x"), experiment="c", parent=below[0].ref)
    [text] = why([first, second, *below, farther, blocked(second)])
    assert "\n  blocks: 5 jobs: qwen/a/eval-0, qwen/a/eval-1, qwen/a/eval-2 and 2 more\n" in text


def test_a_blocked_job_is_explained_by_itself_where_what_blocks_it_is_not_asked_for() -> None:
    parent = job("a")
    [text] = why([blocked(parent)], [parent, blocked(parent)])
    assert text.startswith("qwen/a/eval-arc: blocked")
    assert text.endswith("\n  next: hpcbench why qwen/a/train")


def test_one_job_alone_is_explained_as_before_and_names_what_it_blocks() -> None:
    alone = job("a")
    assert why([alone]) == [explain(alone)]
    [text] = why([alone, blocked(alone)])
    assert "\n  blocks: 1 job: qwen/a/eval-arc\n" in text
    assert text.replace("\n  blocks: 1 job: qwen/a/eval-arc", "") == explain(alone)


def test_a_state_is_named_only_where_it_means_just_these_jobs() -> None:
    lost = [job(f"e{number}", JobState.LOST, cause=None) for number in range(3)]
    [text] = why(lost)
    assert text.endswith("next: hpcbench retry qwen --state lost --adjust  (on another node)")
    [text] = why(lost[:2], lost)
    assert text.endswith("next: hpcbench retry qwen/e0 qwen/e1 --adjust  (on another node)")


def test_a_command_never_holds_hundreds_of_names() -> None:
    many = [job(f"e{number}", JobState.LOST, cause=None) for number in range(300)]
    [text] = why(many[:-1], many)
    assert text.endswith("next: hpcbench retry qwen/e0 --adjust  (on another node; and the other 298 alike)")


def test_a_sweep_of_which_half_failed_is_a_few_lines() -> None:
    timeouts = [job(f"t{number}", JobState.TIMEOUT, cause="interrupted") for number in range(90)]
    memory = [
        job(f"m{number}", JobState.OUT_OF_MEMORY, reason=f"tried to allocate {number} GiB") for number in range(60)
    ]
    jobs = [*timeouts, *memory, *(blocked(parent) for parent in (*timeouts, *memory))]
    texts = why(jobs)
    assert len(texts) == 2
    assert sum(len(text.splitlines()) for text in texts) < 20


@pytest.mark.parametrize("cluster", [LOCAL, "slurm"])
@pytest.mark.parametrize("cause", CAUSES)
@pytest.mark.parametrize("state", sorted({*FAILED_STATES, JobState.OUT_OF_MEMORY}))
def test_the_report_and_why_name_the_same_commands(state: JobState, cause: str | None, cluster: str) -> None:
    found = replace(job("a", state, cause=cause), cluster=cluster)
    view = ExperimentView(suite="qwen", name="a", cmd="sft", main=found)
    collection = Collection(suites=(SuiteView(name="qwen", experiments=(view,)),), collected_at="now")
    report = render(collection, format="markdown")
    told = explain(found)
    for step in next_steps(found):
        assert f"  next: {step}" in told
        assert f"`{step.command}`" in report
    others = {"`hpcbench logs qwen/a`", "`hpcbench why qwen/a`"}
    named = {word for word in report.split("`") if word.startswith("hpcbench ")}
    assert {f"`{word}`" for word in named} - others == {f"`{step.command}`" for step in next_steps(found)}
