"""An interrupted training ends as an uninterrupted one: same losses, same weights, to the last bit."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from hpcbench.schemas import variables
from hpcbench.storage.json_files import read_json, write_json
from hpcbench.storage.paths import AttemptPaths, JobPaths
from hpcbench.worker import signals
from hpcbench.worker.progress_file import read_eval_losses, read_steps
from hpcbench.worker.train import trainer as trainer_module
from tests.support.tiny_models import make_job, read_history, read_metrics, read_weights, start_worker, train_here

pytestmark = pytest.mark.train

FINGERPRINT = "f" * 64


def losses(job: JobPaths) -> list[tuple[int, float | None]]:
    return [(step.step, step.loss) for step in read_steps(job, FINGERPRINT)]


def assert_same_result(job: JobPaths, reference: JobPaths) -> None:
    assert losses(job) == losses(reference)
    assert read_eval_losses(job, FINGERPRINT) == read_eval_losses(reference, FINGERPRINT)
    for name in ("best", "last"):
        found, expected = read_weights(job.checkpoints / name), read_weights(reference.checkpoints / name)
        assert found.keys() == expected.keys()
        assert all((found[key] == expected[key]).all() for key in expected), name


def stop_in_step(monkeypatch: pytest.MonkeyPatch, step: int | None) -> None:
    """Ask for a stop while step `step` is made (its history line is not there yet)."""

    def asked(attempt: AttemptPaths) -> bool:
        if step is None:
            return False
        return sum("loss" in line for line in read_history(attempt)) >= step - 1

    monkeypatch.setattr(trainer_module, "stop_requested", asked)


@pytest.mark.parametrize("sft_type", ["lora", "full"])
def test_stops_at_any_step_change_nothing(
    tmp_path: Path, base_model: Path, chats: Path, monkeypatch: pytest.MonkeyPatch, sft_type: str
) -> None:
    """Stopped at 3 (an evaluation is due), 5 (an epoch's end), 8 and 9 (an evaluation is due)."""
    values: dict[str, Any] = {"sft_type": sft_type, "eval_steps": 3, "save_steps": 2}
    reference = make_job(tmp_path / "reference", base_model, chats, **values)
    train_here(reference)
    job = make_job(tmp_path / "job", base_model, chats, **values)
    for number, (stop, done) in enumerate([(3, 0), (5, 3), (8, 5), (9, 8)], start=1):
        stop_in_step(monkeypatch, stop - done)
        attempt = train_here(job, number)
        assert (read_json(attempt.interrupted) or {})["step"] == stop
        assert not attempt.metrics.exists()
        assert [path.name for path in job.resume.glob("checkpoint-*")] == [f"checkpoint-{stop}"]
    stop_in_step(monkeypatch, None)
    metrics = read_metrics(train_here(job, 5))
    assert_same_result(job, reference)
    expected = read_metrics(reference.attempt(1))
    assert metrics.resumed_from_steps == (3, 5, 8, 9)
    assert metrics.train_loss == expected.train_loss
    assert (metrics.best_step, metrics.eval_loss) == (expected.best_step, expected.eval_loss)
    assert (metrics.num_samples, metrics.num_tokens, metrics.num_steps) == (40, expected.num_tokens, 10)
    assert not job.resume.exists()


def test_a_stop_while_a_training_diverges_does_not_lengthen_it(
    tmp_path: Path, base_model: Path, chats: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    values: dict[str, Any] = {"learning_rate": 1e30, "warmup_ratio": 0, "max_grad_norm": 0, "max_steps": 40}
    job = make_job(tmp_path, base_model, chats, sft_type="full", dataset_test_ratio=0, **values)
    stop_in_step(monkeypatch, 8)
    assert (read_json(train_here(job).interrupted) or {})["step"] == 8
    stop_in_step(monkeypatch, None)
    metrics = read_metrics(train_here(job, 2))
    assert metrics.resumed_from_steps == (8,)
    assert metrics.diverged_at_step is not None
    assert metrics.diverged_at_step < 8
    assert metrics.num_steps == metrics.diverged_at_step + trainer_module.DIVERGED_STEPS - 1


def test_a_stop_during_an_evaluation_puts_it_off(
    tmp_path: Path, base_model: Path, chats: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reference = make_job(tmp_path / "reference", base_model, chats)
    train_here(reference)
    for place, stop in (("middle", 4), ("end", 10)):
        job = make_job(tmp_path / place, base_model, chats)

        def asked(attempt: AttemptPaths, stop: int = stop) -> bool:
            return sum("loss" in line for line in read_history(attempt)) >= stop

        monkeypatch.setattr(trainer_module, "stop_requested", asked)
        attempt = train_here(job)
        assert (read_json(attempt.interrupted) or {})["step"] == stop
        stop_in_step(monkeypatch, None)
        train_here(job, 2)
        assert_same_result(job, reference)


def test_a_stop_in_a_put_off_evaluation_keeps_the_checkpoint(
    tmp_path: Path, base_model: Path, chats: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reference = make_job(tmp_path / "reference", base_model, chats)
    train_here(reference)
    job = make_job(tmp_path / "job", base_model, chats)
    stop_in_step(monkeypatch, 4)
    train_here(job)
    monkeypatch.setattr(trainer_module, "stop_requested", lambda _attempt: True)
    attempt = train_here(job, 2)
    assert (read_json(attempt.interrupted) or {})["step"] == 4
    assert attempt.history.read_text() == ""
    stop_in_step(monkeypatch, None)
    train_here(job, 3)
    assert_same_result(job, reference)


def test_a_stop_before_training_leaves_at_once(
    tmp_path: Path, base_model: Path, chats: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = make_job(tmp_path, base_model, chats)
    monkeypatch.setattr(signals, "stop_requested", lambda _attempt: True)
    attempt = train_here(job)
    assert (read_json(attempt.interrupted) or {})["step"] == 0
    assert not attempt.history.exists()


@pytest.mark.parametrize("max_steps", [13, 20])
def test_a_killed_finish_is_done_again_from_the_last_steps_checkpoint(
    tmp_path: Path, base_model: Path, chats: Path, monkeypatch: pytest.MonkeyPatch, max_steps: int
) -> None:
    """The last step lies within an epoch (13), or at its end (20): no further step may be made."""
    values: dict[str, Any] = {"max_steps": max_steps, "gradient_accumulation_steps": 1}
    reference = make_job(tmp_path / "reference", base_model, chats, **values)
    train_here(reference)
    job = make_job(tmp_path / "job", base_model, chats, **values)

    def fail(*_args: object, **_options: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("hpcbench.worker.train.sft._keep_checkpoints", fail)
        with pytest.raises(KeyboardInterrupt):
            train_here(job)
    metrics = read_metrics(train_here(job, 2))
    assert metrics.resumed_from_steps == (max_steps,)
    assert metrics.num_steps == max_steps
    assert metrics.unknown["time_to_first_step_s"] == "the last attempt had no step left to do"
    assert_same_result(job, reference)


@pytest.mark.parametrize("damage", ["truncate", "remove", "foreign"])
def test_a_damaged_or_foreign_checkpoint_is_not_resumed_from(
    tmp_path: Path, base_model: Path, chats: Path, monkeypatch: pytest.MonkeyPatch, damage: str
) -> None:
    job = make_job(tmp_path, base_model, chats)
    stop_in_step(monkeypatch, 6)
    train_here(job)
    stop_in_step(monkeypatch, None)
    weights = job.resume / "checkpoint-6" / "adapter_model.safetensors"
    if damage == "truncate":
        weights.write_bytes(weights.read_bytes()[:-1])
    elif damage == "remove":
        weights.unlink()
    else:
        manifest = job.resume / "checkpoint-6" / "hpcbench.json"
        manifest.write_text(manifest.read_text().replace(FINGERPRINT, "0" * 64))
    metrics = read_metrics(train_here(job, 2))
    assert metrics.resumed_from_steps == (0,)
    assert metrics.num_steps == 10
    assert metrics.num_samples == 40


def wait_for_step(job: JobPaths, number: int, step: int, worker: subprocess.Popen[bytes]) -> None:
    history = job.attempt(number).history
    deadline = time.monotonic() + 300
    while worker.poll() is None and time.monotonic() < deadline:
        if history.exists() and history.read_text().count('"loss"') >= step:
            return
        time.sleep(0.002)
    pytest.fail(f"step {step} never came:\n{job.attempt(number).log.read_text()}")


@pytest.mark.long  # test_every_method.py kills every method, in a process that is ready sooner
@pytest.mark.parametrize("sft_type", ["lora", "full"])
def test_a_kill_at_a_random_step_changes_nothing(tmp_path: Path, base_model: Path, chats: Path, sft_type: str) -> None:
    values: dict[str, Any] = {"sft_type": sft_type, "num_train_epochs": 40, "eval_steps": 25, "save_steps": 7}
    reference = make_job(tmp_path / "reference", base_model, chats, **values)
    job = make_job(tmp_path / "job", base_model, chats, **values)
    worker = start_worker(job)
    step = random.randint(10, 120)
    wait_for_step(job, 1, step, worker)
    worker.kill()
    assert worker.wait(timeout=300) == -signal.SIGKILL
    train_here(reference)
    metrics = read_metrics(train_here(job, 2))
    assert metrics.resumed_from_steps[0] >= step - 7 > 0, f"killed at step {step}"
    assert_same_result(job, reference)
    assert metrics.train_loss == read_metrics(reference.attempt(1)).train_loss


def test_two_ranks_die_with_their_launcher_and_resume_to_the_same_result(
    tmp_path: Path, base_model: Path, chats: Path
) -> None:
    values: dict[str, Any] = {"ddp": 2, "batch_size": 1, "num_train_epochs": 20, "eval_steps": 25, "save_steps": 7}
    reference = make_job(tmp_path / "reference", base_model, chats, **values)
    job = make_job(tmp_path / "job", base_model, chats, **values)
    write_json(job.request, {**(read_json(job.request) or {}), "inputs": {str(chats): "a" * 64}})
    kept: dict[str, Any] = {variables.TOKENIZED_DATA: str(tmp_path / "tokens")}
    launcher = start_worker(job, ddp=2, **kept)
    wait_for_step(job, 1, random.randint(10, 60), launcher)
    ranks = find_children(launcher.pid)
    assert len(ranks) == 2
    launcher.kill()
    launcher.wait(timeout=300)
    deadline = time.monotonic() + 300
    while any(map(is_alive, ranks)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(map(is_alive, ranks))
    uninterrupted, resumed = start_worker(reference, ddp=2), start_worker(job, 2, ddp=2, **kept)
    assert uninterrupted.wait(timeout=300) == 0, reference.attempt(1).log.read_text()
    assert resumed.wait(timeout=300) == 0, job.attempt(2).log.read_text()
    assert read_metrics(job.attempt(2)).resumed_from_steps[0] > 0
    assert_same_result(job, reference)
    # One rank tokenized in the first attempt, and none in the second.
    logs = [job.attempt(number).log.read_text() for number in (1, 2)]
    assert [(log.count("tokens: kept in"), log.count("tokens: found in")) for log in logs] == [(1, 0), (0, 1)]


def test_signals_do_nothing_and_the_stop_file_makes_it_leave(tmp_path: Path, base_model: Path, chats: Path) -> None:
    job = make_job(tmp_path, base_model, chats, num_train_epochs=4000)
    worker = start_worker(job)
    wait_for_step(job, 1, 3, worker)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR2):
        os.kill(worker.pid, number)
    done = read_history(job.attempt(1))[-1]["step"]
    wait_for_step(job, 1, done + 5, worker)
    job.attempt(1).stop.write_text("{}")
    assert worker.wait(timeout=300) == 0, job.attempt(1).log.read_text()
    step = (read_json(job.attempt(1).interrupted) or {})["step"]
    assert (job.resume / f"checkpoint-{step}").is_dir()
    assert not job.attempt(1).metrics.exists()


def find_children(pid: int) -> list[int]:
    text = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="utf-8")
    children = [int(word) for word in text.split()]
    return [child for child in children if b"hpcbench.worker" in Path(f"/proc/{child}/cmdline").read_bytes()]


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False
