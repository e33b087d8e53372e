"""Local mode as a scheduler: ids, answers, the text it would run, and one runner per save directory."""

from __future__ import annotations

import multiprocessing
import os
import time
from collections.abc import Iterator
from multiprocessing.queues import SimpleQueue
from multiprocessing.synchronize import Event
from pathlib import Path

import pytest

from hpcbench.processes.process_tree import ProcessIdentity, identify_process
from hpcbench.scheduler.local import runner_claim as local_claim
from hpcbench.scheduler.local.machine import read_machine
from hpcbench.scheduler.local.queue_files import ElementStatus, LocalQueue
from hpcbench.scheduler.local.runner_claim import (
    SILENCE_S,
    last_runner,
    leave_claim,
    live_runner,
    renew_claim,
    take_claim,
)
from hpcbench.scheduler.local.scheduler import LocalScheduler
from hpcbench.storage.clock import file_age_s
from hpcbench.storage.json_files import create_json
from hpcbench.storage.paths import LocalPaths
from tests.support.local_queue import FOLDER, World, make_world

FAR = ProcessIdentity(host="another-machine", pid=1, start_ticks=1)


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    monkeypatch.setenv("WORLD", str(tmp_path / FOLDER))
    with make_world(tmp_path / FOLDER) as made:
        yield made


def _take_and_stay(paths: LocalPaths, answers: SimpleQueue[bool], all_done: Event) -> None:
    answers.put(take_claim(paths))
    all_done.wait()


@pytest.mark.parametrize("round_number", range(4))
def test_of_many_that_take_a_dead_runners_place_one_gets_it(tmp_path: Path, round_number: int) -> None:
    paths = LocalPaths(tmp_path)
    me = identify_process(os.getpid())
    assert me is not None
    assert me.start_ticks is not None
    dead = ProcessIdentity(host=me.host, pid=me.pid, start_ticks=me.start_ticks - 1)  # its pid was used again
    create_json(paths.runner, {"schema_version": 1, "process": dead.model_dump(), "at": ""})
    assert live_runner(paths) is None
    context = multiprocessing.get_context("fork")
    answers: SimpleQueue[bool] = context.SimpleQueue()
    all_done = context.Event()
    takers = [context.Process(target=_take_and_stay, args=(paths, answers, all_done)) for _ in range(6)]
    for taker in takers:
        taker.start()
    taken = [answers.get() for _ in takers]
    all_done.set()
    for taker in takers:
        taker.join()
    assert sorted(taken) == [False] * 5 + [True]


def leave_claim_of(other: ProcessIdentity, paths: LocalPaths, *, age_s: float = 0.0) -> None:
    create_json(paths.runner, {"schema_version": 1, "process": other.model_dump(), "at": ""})
    moment = paths.runner.stat().st_mtime - age_s
    os.utime(paths.runner, (moment, moment))


@pytest.mark.parametrize("skew_s", [0.0, 2 * SILENCE_S])
def test_a_runner_of_another_machine_that_is_heard_lives(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, skew_s: float
) -> None:
    real = time.time
    monkeypatch.setattr(time, "time", lambda: real() + skew_s)
    paths = LocalPaths(tmp_path)
    leave_claim_of(FAR, paths, age_s=SILENCE_S / 2)
    assert not take_claim(paths)
    leave_claim(paths)
    assert live_runner(paths) == FAR


def test_a_runner_of_another_machine_that_is_silent_is_replaced_and_told(tmp_path: Path) -> None:
    paths = LocalPaths(tmp_path)
    leave_claim_of(FAR, paths, age_s=SILENCE_S + 10)
    assert live_runner(paths) is None
    assert take_claim(paths)
    assert renew_claim(paths)
    paths.runner.unlink()
    leave_claim_of(FAR, paths)
    assert not renew_claim(paths)
    leave_claim(paths)
    assert live_runner(paths) == FAR
    assert list(paths.folder.iterdir()) == [paths.runner]


def test_a_runner_that_touches_its_claim_is_heard(tmp_path: Path) -> None:
    paths = LocalPaths(tmp_path)
    assert take_claim(paths)
    os.utime(paths.runner, (0, 0))
    assert renew_claim(paths)
    age_s = file_age_s(paths.runner)
    assert age_s is not None
    assert age_s < 60
    paths.runner.unlink()
    assert renew_claim(paths)
    assert live_runner(paths) == identify_process(os.getpid())


def test_of_two_machines_that_replace_a_silent_runner_one_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = LocalPaths(tmp_path)
    leave_claim_of(FAR, paths, age_s=SILENCE_S + 10)
    farther = FAR.model_copy(update={"host": "a-third-machine"})

    def look(_: LocalPaths) -> None:
        """Report that nobody runs the queue, just before a third machine begins to."""
        paths.runner.unlink()
        leave_claim_of(farther, paths)

    monkeypatch.setattr(local_claim, "live_runner", look)
    assert not take_claim(paths)
    assert last_runner(paths) == farther


def test_a_submission_is_queued_once_and_found_by_its_key(world: World) -> None:
    first = world.submit("k1", {"a": "true"})
    second = world.submit("k2", {"b": "true"})
    assert first != second
    assert world.scheduler.submit(world.submissions["k1"], None) == first
    assert world.scheduler.find(["k2", "k3", "k1"]) == {"k2": second, "k1": first}
    assert world.scheduler.find(["k3"]) == {}


def test_a_query_knows_nothing_of_what_was_never_queued(world: World) -> None:
    world.submit("k1", {"a": "true"})
    stranger = world.submissions["k1"].model_copy(update={"scheduler_id": "local-20200101000000-1"})
    answer = world.scheduler.query([stranger])
    assert (dict(answer.jobs), answer.history_known) == ({}, True)


def test_the_rendered_text_shows_commands_slots_and_dependency(world: World) -> None:
    world.submit("k1", {"a": "true", "b": "true"}, gpu=2, ddp=2)
    scheduler = LocalScheduler(world.save_dir, job_command=lambda s, i: ["run", f"{s.key}'s", str(i)])
    assert scheduler.render(world.submissions["k1"], "local-20260101000000-1") == (
        f"# k1: local queue {world.save_dir}/local/queue, 2 GPU slots per job\n"
        "# index 0: demo/a train, after index 0 of local-20260101000000-1 has completed\n"
        "CUDA_VISIBLE_DEVICES='<2 free>' run 'k1'\"'\"'s' 0\n"
        "# index 1: demo/b train, after index 1 of local-20260101000000-1 has completed\n"
        "CUDA_VISIBLE_DEVICES='<2 free>' run 'k1'\"'\"'s' 1\n"
    )


def test_cuda_visible_devices_limits_the_slots() -> None:
    assert read_machine({"CUDA_VISIBLE_DEVICES": "3,5"}).gpus == ("3", "5")
    assert read_machine({"CUDA_VISIBLE_DEVICES": ""}).gpus == ()
    assert read_machine({"CUDA_VISIBLE_DEVICES": ""}).cpus == len(os.sched_getaffinity(0))


def test_the_state_of_a_job_that_never_started_is_made_once(world: World) -> None:
    queue = LocalQueue(world.save_dir)
    assert queue.state("a") is queue.state("b")
    assert queue.state("a").status is ElementStatus.PENDING
