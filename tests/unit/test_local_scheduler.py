"""Local mode as a scheduler: ids, answers, the text it would run, and one runner per save directory."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Iterator
from multiprocessing.queues import SimpleQueue
from multiprocessing.synchronize import Event
from pathlib import Path

import pytest

from hpcbench.jsonfile import create_json
from hpcbench.paths import LocalPaths
from hpcbench.processes import ProcessIdentity, identify_process
from hpcbench.scheduler.local import LocalScheduler
from hpcbench.scheduler.local_claim import leave_claim, live_runner, take_claim
from hpcbench.scheduler.local_machine import read_machine
from tests.unit.local_world import FOLDER, World, make_world


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


def test_a_runner_of_another_machine_is_never_declared_dead(tmp_path: Path) -> None:
    paths = LocalPaths(tmp_path)
    other = ProcessIdentity(host="another-machine", pid=1, start_ticks=1)
    create_json(paths.runner, {"schema_version": 1, "process": other.model_dump(), "at": ""})
    assert not take_claim(paths)
    leave_claim(paths)
    assert live_runner(paths) == other


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
