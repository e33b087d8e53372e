"""The course of a training over its attempts, as curves, exports and notebooks read it."""

from __future__ import annotations

import json
from pathlib import Path

from hpcbench.schemas.history import History, read_history
from hpcbench.storage.paths import JobPaths


def write_attempt(job: JobPaths, number: int, *lines: object) -> None:
    """Write an attempt's history: a line for each object, texts as they are."""
    file = job.attempt(number).history
    file.parent.mkdir(parents=True)
    texts = (line if isinstance(line, str) else json.dumps(line) for line in lines)
    file.write_text("".join(f"{text}\n" for text in texts))


def test_steps_and_evaluations_are_told_apart(tmp_path: Path) -> None:
    job = JobPaths(tmp_path)
    write_attempt(
        job,
        1,
        {"step": 1, "loss": 2.0, "learning_rate": 1e-4, "num_tokens": 300},
        {"step": 2, "loss": 1.5, "learning_rate": 5e-5, "num_tokens": 280},
        {"step": 2, "eval_loss": 1.75},
    )
    history = read_history(job)
    assert history.train == {
        1: {"loss": 2.0, "learning_rate": 1e-4, "num_tokens": 300.0},
        2: {"loss": 1.5, "learning_rate": 5e-5, "num_tokens": 280.0},
    }
    assert history.evals == {2: {"eval_loss": 1.75}}


def test_series_gives_the_steps_that_have_the_figure(tmp_path: Path) -> None:
    job = JobPaths(tmp_path)
    write_attempt(
        job,
        1,
        {"step": 1, "loss": 2.0},
        {"step": 2, "loss": None},
        {"step": 3, "loss": 1.0},
        {"step": 3, "eval_loss": 1},
    )
    history = read_history(job)
    assert history.series("loss") == [(1, 2.0), (3, 1.0)]
    assert history.series("eval_loss") == [(3, 1.0)]
    assert history.series("grad_norm") == []


def test_steps_that_an_attempt_did_again_count_as_it_did_them(tmp_path: Path) -> None:
    job = JobPaths(tmp_path)
    steps = [{"step": step, "loss": 10.0 - step} for step in range(1, 7)]
    write_attempt(job, 1, *steps, {"step": 4, "eval_loss": 6.5}, {"step": 6, "eval_loss": 4.5})
    # Goes on from a checkpoint at step 4, and is stopped earlier than the first attempt was.
    write_attempt(job, 2, {"step": 5, "loss": 0.5})
    history = read_history(job)
    assert history.series("loss") == [(1, 9.0), (2, 8.0), (3, 7.0), (4, 6.0), (5, 0.5)]
    assert history.series("eval_loss") == [(4, 6.5)]


def test_evaluation_that_an_attempt_makes_up_for_takes_no_step_away(tmp_path: Path) -> None:
    job = JobPaths(tmp_path)
    write_attempt(job, 1, *({"step": step, "loss": 10.0 - step} for step in range(1, 6)))
    # Stopped before the evaluation of step 4, from whose checkpoint the second attempt goes on.
    write_attempt(job, 2, {"step": 4, "eval_loss": 6.5}, {"step": 5, "loss": 0.5})
    history = read_history(job)
    assert history.series("loss") == [(1, 9.0), (2, 8.0), (3, 7.0), (4, 6.0), (5, 0.5)]
    assert history.series("eval_loss") == [(4, 6.5)]


def test_training_that_began_anew_keeps_nothing_of_the_attempt_before(tmp_path: Path) -> None:
    job = JobPaths(tmp_path)
    write_attempt(job, 1, {"step": 1, "loss": 2.0}, {"step": 2, "loss": 1.0})
    write_attempt(job, 2, {"step": 1, "loss": 3.0})
    assert read_history(job).series("loss") == [(1, 3.0)]


def test_attempts_are_read_by_number_not_by_name(tmp_path: Path) -> None:
    job = JobPaths(tmp_path)
    for number in range(1, 12):
        write_attempt(job, number, {"step": number, "loss": float(number)})
    assert [step for step, _ in read_history(job).series("loss")] == list(range(1, 12))


def test_lines_that_cannot_be_read_are_left_out(tmp_path: Path) -> None:
    job = JobPaths(tmp_path)
    write_attempt(
        job,
        1,
        {"step": 1, "loss": 2.0},
        "",
        "[1, 2]",
        '{"loss": 1.0}',
        '{"step": "2", "loss": 1.0}',
        '{"step": true, "loss": 1.0}',
        '{"step": 3, "loss": 1.5, "note": "text", "flag": true}',
        '{"step": 4, "loss": 1.2',
    )
    assert read_history(job).train == {1: {"loss": 2.0}, 3: {"loss": 1.5}}


def test_figures_that_are_no_finite_numbers_are_missing(tmp_path: Path) -> None:
    job = JobPaths(tmp_path)
    huge = "9" * 400
    write_attempt(job, 1, f'{{"step": 1, "loss": NaN, "grad_norm": Infinity, "num_tokens": {huge}, "epoch": 0.5}}')
    assert read_history(job).train == {1: {"epoch": 0.5}}


def test_job_without_attempts_has_an_empty_history(tmp_path: Path) -> None:
    assert read_history(JobPaths(tmp_path / "never")) == History()


def test_attempt_that_ended_before_its_first_step_changes_nothing(tmp_path: Path) -> None:
    job = JobPaths(tmp_path)
    write_attempt(job, 1, {"step": 1, "loss": 2.0})
    write_attempt(job, 2)
    job.attempt(3).folder.mkdir()
    assert read_history(job).series("loss") == [(1, 2.0)]
