"""The status: a line per experiment or job, whatever the width, and what a pipe gets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest
from rich.cells import cell_len

from hpcbench.cli.status_table import Place, status_lines
from hpcbench.schemas.collection import JobView
from hpcbench.schemas.states import FAILED_STATES, JobState
from tests.conftest import Golden
from tests.support import report_cases as cases
from tests.support import report_parts as parts

WIDTHS = (60, 80, 120, 200)


def shown(jobs: Sequence[JobView], place: Place) -> list[str]:
    return [line.plain for line in status_lines(jobs, place)]


def tuner() -> list[JobView]:
    """Return the jobs of SWIFT 2.x's tuners in all kinds of states, with ids and times as a scheduler gives them."""
    jobs = [replace(job, scheduler_id=f"4711_{number}") for number, job in enumerate(cases.tuner().jobs)]
    starts = {"rslora": "2026-07-01T18:00:00"}
    running = {"eta_s": 5060.0}
    return [
        replace(job, expected_start=starts[job.experiment])
        if job.experiment in starts
        else replace(job, progress={**job.progress, **running})
        if job.state is JobState.RUNNING
        else job
        for job in jobs
    ]


def one(name: str, state: JobState, **told: object) -> JobView:
    return replace(parts.make_job(name, "train", suite="s", state=state), **told)  # type: ignore[arg-type]  # a test's


def sweep(num: int, state: JobState = JobState.COMPLETED) -> list[JobView]:
    names = [f"q-lora_rank={rank}-learning_rate=1e-5-batch_size=8-lora_dropout={rank / 10}" for rank in range(num)]
    return [one(name, state) for name in names]


@pytest.mark.parametrize("width", WIDTHS)
def test_the_status_of_experiments_is_the_golden_one(width: int, golden: Golden) -> None:
    golden(f"status/tuner.{width}.txt", "\n".join(shown(tuner(), Place(width=width))) + "\n")


@pytest.mark.parametrize("width", WIDTHS)
def test_the_status_of_jobs_is_the_golden_one(width: int, golden: Golden) -> None:
    golden(f"status/tuner.jobs.{width}.txt", "\n".join(shown(tuner(), Place(width=width, by_job=True))) + "\n")


def test_the_status_in_a_pipe_is_the_golden_one(golden: Golden) -> None:
    golden("status/tuner.pipe.txt", "\n".join(shown(tuner(), Place())) + "\n")
    golden("status/tuner.jobs.pipe.txt", "\n".join(shown(tuner(), Place(by_job=True))) + "\n")


@pytest.mark.parametrize("by_job", [False, True])
@pytest.mark.parametrize("width", [40, *WIDTHS])
def test_no_line_is_wider_than_the_terminal_and_no_experiment_has_two(width: int, by_job: bool) -> None:
    many_evals = [replace(parts.make_job("a", f"eval-task{n}", suite="s", cmd="eval"), suite="s") for n in range(30)]
    hostile = one("b\n\x1b[31m", JobState.FAILED, reason="line one\nline two\t" * 20)
    for jobs in (tuner(), sweep(5), [*many_evals, hostile]):
        lines = shown(jobs, Place(width=width, by_job=by_job))
        assert max(map(cell_len, lines)) <= width
        assert not any("\n" in line or "\x1b" in line for line in lines)


@pytest.mark.parametrize("by_job", [False, True])
def test_a_pipe_gets_whole_words_and_one_line_a_row(by_job: bool) -> None:
    jobs = [*sweep(3), one("long", JobState.PENDING, reason="waits " * 60)]
    lines = shown(jobs, Place(by_job=by_job))
    assert len(lines) == 2 + len(jobs)
    assert lines[2].split()[0] == "long"
    assert ("waits " * 60).strip() in lines[2]
    for job in jobs[:3]:
        [line] = [line for line in lines if line.split()[0] == job.experiment]
        assert "completed" in line


def test_what_moves_comes_first_and_what_is_done_last() -> None:
    states = (JobState.COMPLETED, JobState.PLANNED, JobState.TIMEOUT, JobState.PENDING, JobState.RUNNING)
    lines = shown([one(f"e{n}", state) for n, state in enumerate(states)], Place(width=80))
    assert [line.split()[0] for line in lines[-5:]] == ["e4", "e2", "e3", "e1", "e0"]


def test_counts_come_first_and_explain_every_mark() -> None:
    jobs = [one(state.value, state) for state in JobState]
    lines = shown(jobs, Place(width=200))
    assert lines[0].startswith("14 experiments, 14 jobs: · 1 planned, ○ 1 pending, ● 1 running, ✔ 1 completed")
    assert all(f" 1 {state}" in "".join(lines[:2]) for state in JobState)


def test_an_ascii_terminal_gets_marks_that_it_can_show() -> None:
    lines = shown([one(state.value, state) for state in JobState], Place(width=80, ascii_only=True))
    assert all(line.isascii() for line in lines)


def test_the_main_job_decides_until_it_has_completed_then_the_most_urgent_eval() -> None:
    train = one("a", JobState.TIMEOUT, reason="the time limit was reached")
    arc = replace(parts.make_job("a", "eval-arc", suite="s", cmd="eval", state=JobState.BLOCKED), reason="its train")
    assert shown([train, arc], Place(width=80))[2].endswith("timeout: the time limit was reached")
    done = replace(train, state=JobState.COMPLETED)
    running = replace(arc, state=JobState.RUNNING, progress={"done": 30, "total": 200})
    assert shown([done, running], Place(width=80))[2].endswith("✔      ●    arc 30/200 (15%)")


def test_what_is_left_out_is_counted_by_state_with_the_command_that_shows_it() -> None:
    jobs = [*sweep(40), *sweep(3, JobState.RUNNING)]
    lines = shown(jobs, Place(width=80, rows=10))
    assert lines[-1] == "and 30 more: 30 completed; `hpcbench status --jobs` shows all"
    assert sum("●" in line for line in lines[2:]) == 3


def test_a_long_name_keeps_both_ends() -> None:
    [line] = shown(sweep(1), Place(width=60))[2:]
    assert line.startswith("q-lora_rank=0-le…lora_dropout=0.0  ✔")


def test_several_suites_have_a_column() -> None:
    jobs = [one("a", JobState.RUNNING), replace(one("a", JobState.RUNNING), suite="other")]
    assert [line.split()[:2] for line in shown(jobs, Place(width=80))[1:]] == [
        ["suite", "experiment"], ["s", "a"], ["other", "a"],
    ]  # fmt: skip


def test_a_narrow_terminal_says_that_it_leaves_out_the_ids() -> None:
    assert shown(tuner(), Place(width=60, by_job=True))[-1] == "not shown here: id; see --json"
    assert "4711_0" in "\n".join(shown(tuner(), Place(width=120, by_job=True)))


def test_nothing_to_show_says_so() -> None:
    assert shown([], Place(width=80)) == ["no jobs"]


def test_every_state_has_a_rank_and_a_mark() -> None:
    from hpcbench.cli.status_table import MARKS, RANK

    assert set(MARKS) == set(RANK) == set(JobState)
    assert all(MARKS[state] == MARKS[JobState.FAILED] for state in FAILED_STATES)
