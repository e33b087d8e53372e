"""What a person sees of local jobs: lines that stay, cells of running ones, a terminal, a terminal that goes away."""

from __future__ import annotations

import io
import os
import pty
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from hpcbench.scheduler.local.display import (
    LineDisplay,
    encodable,
    end_line,
    open_display,
    progress_cells,
)
from hpcbench.scheduler.local.queue_files import ElementState, ElementStatus, LocalQueue, QueuedElement
from hpcbench.schemas.headline import headline
from hpcbench.schemas.metrics import CommandMetrics, EvalMetrics, Metrics, Parameters, TaskResult, TrainMetrics
from hpcbench.schemas.record import Cause, Record
from hpcbench.schemas.states import JobState
from hpcbench.storage.json_files import write_json
from tests.support.local_queue import DRIVER, FOLDER, World, make_world

TRAIN = TrainMetrics(
    parameters=Parameters(trainable=1, total=2),
    train_loss=0.21,
    eval_loss=0.34567,
    num_steps=1,
    num_samples=1,
    num_tokens=1,
)
ENDED = ElementState(
    status=ElementStatus.ENDED,
    exit_code=0,
    started_at="2026-01-01T00:00:00.000000Z",
    ended_at="2026-01-01T00:00:18.500000Z",
)


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    monkeypatch.setenv("WORLD", str(tmp_path / FOLDER))
    with make_world(tmp_path / FOLDER) as made:
        yield made


@pytest.fixture
def element(world: World) -> QueuedElement:
    world.submit("k1", {"lora": "true"})
    queue = LocalQueue(world.save_dir)
    queue.scan_entries()
    return next(iter(queue.elements.values()))


def record(state: JobState, *, metrics: Metrics | None = None, cause: Cause | None = None) -> Record:
    return Record(
        hpcbench_version="1",
        suite="demo",
        experiment="lora",
        job="train",
        cmd="sft",
        state=state,
        fingerprint="f" * 64,
        cause=cause,
        metrics=metrics,
        started_at="2026-01-01T00:00:00Z",
        finished_at="2026-01-01T00:00:18Z",
    )


def keep(element: QueuedElement, value: Record) -> None:
    write_json(element.paths.record, value.model_dump(mode="json"))


def test_a_completed_job_is_told_with_its_time_and_its_headline(element: QueuedElement) -> None:
    assert end_line(element, ENDED) == "✓ demo/lora train  18.5 s"
    keep(element, record(JobState.COMPLETED, metrics=TRAIN))
    assert end_line(element, ENDED) == "✓ demo/lora train  18.5 s  train_loss 0.21, eval_loss 0.3457"


def test_a_failed_job_is_told_with_its_cause_and_its_log(element: QueuedElement) -> None:
    failed = ENDED.model_copy(update={"exit_code": 1, "reason": "exit code 1"})
    assert end_line(element, failed) == f"✗ demo/lora train  18.5 s  exit code 1; see {element.log}"
    cause = Cause(type="ValueError", message="no such\n\x1b[31mtemplate", log="attempt-1/output.log", lines=("a", "b"))
    keep(element, record(JobState.FAILED, cause=cause))
    log = element.paths.attempt(1).log
    assert end_line(element, failed) == f"✗ demo/lora train  18.5 s  failed: no such  [31mtemplate: b; see {log}"


@pytest.mark.parametrize(
    ("status", "reason", "line"),
    [
        (ElementStatus.REFUSED, "asks for 2 GPUs", "✗ demo/lora train  asks for 2 GPUs"),
        (ElementStatus.BLOCKED, "its train job failed", "- demo/lora train  blocked: its train job failed"),
        (ElementStatus.CANCELLED, "", "- demo/lora train  cancelled"),
        (ElementStatus.PENDING, "", "- demo/lora train  stopped, goes back to the queue"),
    ],
)
def test_other_ends_are_told_in_words(element: QueuedElement, status: ElementStatus, reason: str, line: str) -> None:
    assert end_line(element, ElementState(status=status, reason=reason)) == line


def test_the_headline_is_the_primary_metric_or_the_programs_first_values() -> None:
    result = TaskResult(metrics={"acc,none": 0.51234, "acc_stderr,none": 0.01}, num_samples=10)
    metrics = EvalMetrics(dataset="arc", primary_metric="acc,none", primary_task="arc_easy", tasks={"arc_easy": result})
    assert headline(record(JobState.COMPLETED, metrics=metrics)) == "acc 0.5123"
    program = CommandMetrics(values={"score": 2.5, "name": "x", "best": 3.0, "zeta": 4.0, "ok": True})
    assert headline(record(JobState.COMPLETED, metrics=program)) == "best 3, score 2.5"
    assert headline(record(JobState.COMPLETED)) == headline(None) == ""


def test_progress_of_a_train_and_of_an_eval_job() -> None:
    train = {
        "phase": "training",
        "step": 340,
        "max_steps": 1250,
        "loss": 1.23456,
        "samples_per_second": 12.34,
        "eta_s": 185,
    }
    assert progress_cells(train) == ("training", "340/1250", "loss 1.235", "12.3 samples/s", "3 min 05 s left")
    assert progress_cells({"phase": "evaluating", "done": 3, "total": 9}) == ("evaluating", "3/9", "", "", "")
    assert progress_cells({}) == ("starting", "", "", "", "")
    assert progress_cells({"phase": "training", "loss": None, "step": "x"}) == ("training", "", "", "", "")


def test_marks_are_replaced_where_they_cannot_be_shown() -> None:
    ascii_only = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    assert encodable("✓ é ✗", ascii_only) == "+ ? x"
    assert encodable("✓", io.TextIOWrapper(io.BytesIO(), encoding="utf-8")) == "✓"


def test_out_of_gpu_memory_is_a_result_and_no_failure(world: World) -> None:
    world.submit("k1", {"lora": "sleep 0.3; exit 1"})
    world.submit("k2", {"lora": "true"}, job="eval-x", after="k1")
    queue = LocalQueue(world.save_dir)
    queue.scan_entries()
    keep(next(iter(queue.elements.values())), record(JobState.OUT_OF_MEMORY))
    assert world.run() == 0
    assert world.states() == {"lora": JobState.FAILED, "lora-eval-x": JobState.BLOCKED}


def test_without_a_terminal_there_are_plain_lines_only(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    world.submit("k1", {"good": "true", "bad": "exit 3"}, gpu=1)
    assert world.run(display=True) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[:2] == ["> demo/good train  started  GPU 0", "> demo/bad train  started  GPU 1"]
    assert sorted(line.split("  ")[0] for line in lines[2:]) == ["✓ demo/good train", "✗ demo/bad train"]
    assert "\x1b" not in "".join(lines)


def test_a_switched_off_display_writes_nothing(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    world.submit("k1", {"a": "true"})
    assert world.run(display=False) == 0
    assert capsys.readouterr().out == ""


def test_a_reader_that_goes_away_stops_no_job(world: World) -> None:
    class Gone(io.StringIO):
        def write(self, _text: str) -> int:
            raise BrokenPipeError

    with open_display(enabled=True, stream=Gone()) as display:
        assert isinstance(display, LineDisplay)
        display.say("hello")


def test_a_terminal_shows_running_jobs_and_leaves_lines_of_ended_ones(world: World) -> None:
    folder = world.save_dir / "demo" / "slow" / "train"
    folder.mkdir(parents=True)
    report = '{"phase": "training", "step": 3, "max_steps": 9, "loss": 0.5, "eta_s": 7}'
    slow = f"echo '{report}' > \"$WORLD/demo/slow/train/progress.json\"; sleep 60 & wait"
    world.submit("k1", {"slow": slow, "quick": "true", "bad": "exit 3"})
    master, slave = pty.openpty()
    env = {**os.environ, "TERM": "xterm", "COLUMNS": "150"}
    argv = [sys.executable, "-c", DRIVER, str(world.save_dir), "5"]
    driver = subprocess.Popen(argv, stdout=slave, stderr=slave, stdin=slave, env=env)
    os.close(slave)
    seen = b""
    while b"loss 0.5" not in seen or b"1 done, 1 failed" not in seen:
        seen += os.read(master, 4096)
    driver.send_signal(signal.SIGINT)
    try:
        while chunk := os.read(master, 4096):
            seen += chunk
    except OSError:  # Linux says EIO when the other side is closed
        pass
    assert driver.wait(timeout=120) == 130
    os.close(master)
    text = seen.decode()
    for part in (
        "demo/slow train",
        "training",
        "3/9",
        "7.0 s left",
        "✓ demo/quick train",
        "✗ demo/bad train",
        "exit code 3",
    ):
        assert part in text
    assert "1 running, 0 waiting, 1 done, 1 failed" in text
    assert "- demo/slow train  stopped, goes back to the queue" in text
    assert text.count("✓ demo/quick train") == 1
    assert "\x1b[?25h" in text  # the cursor is given back


def test_a_terminal_that_is_closed_stops_the_jobs_cleanly(world: World) -> None:
    world.submit("k1", {"slow": f"{world.note('up')}; sleep 60 & wait"})
    master, slave = pty.openpty()
    argv = [sys.executable, "-c", DRIVER, str(world.save_dir), "5"]
    driver = subprocess.Popen(argv, stdout=slave, stderr=slave, stdin=slave, env={**os.environ, "TERM": "xterm"})
    os.close(slave)
    world.wait_for(lambda: world.lines("notes") == ["up"])
    os.close(master)
    driver.send_signal(signal.SIGHUP)
    assert driver.wait(timeout=120) == 130
    assert world.states() == {"slow": JobState.PENDING}
