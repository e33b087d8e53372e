"""The local queue, run for real with trivial commands: slots, dependencies, cancel, Ctrl-C, kill -9, two runners."""

from __future__ import annotations

import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from hpcbench.errors import SchedulerError
from hpcbench.processes.process_tree import ProcessIdentity, is_alive
from hpcbench.scheduler.local import runner as local_runner
from hpcbench.scheduler.local import runner_claim as local_claim
from hpcbench.scheduler.local.choose_starts import Machine
from hpcbench.scheduler.local.queue_files import ElementState, ElementStatus, LocalQueue
from hpcbench.scheduler.local.runner import run_queue, start_detached
from hpcbench.scheduler.local.runner_claim import last_runner
from hpcbench.scheduler.local.scheduler import NO_RUNNER
from hpcbench.schemas.states import JobState
from hpcbench.storage.json_files import write_json
from hpcbench.storage.paths import LocalPaths, SuitePaths
from tests.support.local_queue import FOLDER, GO, MACHINE, World, make_world


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    monkeypatch.setenv("WORLD", str(tmp_path / FOLDER))
    with make_world(tmp_path / FOLDER) as made:
        yield made


def test_jobs_run_and_the_exit_code_is_0(world: World) -> None:
    first = world.submit("k1", {"a": world.note(), "b": world.note()})
    assert world.run() == 0
    assert sorted(world.lines("notes")) == [f"{first}_0", f"{first}_1"]
    assert world.states() == {"a": JobState.COMPLETED, "b": JobState.COMPLETED}
    assert not LocalPaths(world.save_dir).runner.exists()
    assert world.run() == 0  # nothing is left to do
    assert len(world.lines("notes")) == 2


def test_a_job_sees_its_slots_and_nothing_of_slurm(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    monkeypatch.setenv("SBATCH_ACCOUNT", "x")
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    gpu = world.submit("k1", {"gpu": "env; cat; ps -o sid= -p $$; echo $$"}, gpu=2, ddp=2)
    cpu = world.submit("k2", {"cpu": "env"}, cpus=2)
    assert world.run(Machine(gpus=("0", "GPU-1"), cpus=8)) == 0
    logs = SuitePaths(world.save_dir, "demo").slurm_logs
    lines = (logs / f"{gpu}_0.out").read_text().splitlines()
    assert {"CUDA_VISIBLE_DEVICES=0,GPU-1", f"HPCBENCH_LOCAL_ID={gpu}_0", "OMP_NUM_THREADS=4"} <= set(lines)
    assert "CUDA_DEVICE_ORDER=PCI_BUS_ID" in lines
    assert not [line for line in lines if line.startswith(("SLURM_", "SBATCH_"))]
    assert lines[-1].strip() == lines[-2].strip()  # leader of its own session
    lines = (logs / f"{cpu}_0.out").read_text().splitlines()
    assert {"CUDA_VISIBLE_DEVICES=", f"HPCBENCH_LOCAL_ID={cpu}_0", "OMP_NUM_THREADS=2"} <= set(lines)
    mark = SuitePaths(world.save_dir, "demo").start_marks("k1") / "0"
    assert mark.read_text().startswith(f"{gpu}_0 0 ")


def test_a_users_omp_num_threads_is_kept(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    world.submit("k1", {"a": world.note("$OMP_NUM_THREADS")})
    assert world.run() == 0
    assert world.lines("notes") == ["3"]


def test_no_gpu_is_given_to_two_jobs_at_once(world: World) -> None:
    stamp = "$CUDA_VISIBLE_DEVICES $(date +%s%N)"
    body = f"{world.note(f'start {stamp}')}; sleep 0.2; {world.note(f'end {stamp}')}"
    world.submit("k1", dict.fromkeys("abcde", body), gpu=1)
    assert world.run() == 0
    notes = [line.split() for line in world.lines("notes")]
    events = sorted((int(moment), what, gpu) for what, gpu, moment in notes)
    assert len(events) == 10
    held: set[str] = set()
    for _, what, gpu in events:
        assert (gpu in held) == (what == "end")
        held ^= {gpu}


def test_jobs_that_fit_run_at_the_same_time(world: World) -> None:
    wait_for = 'until [ -e "$WORLD/{0}" ]; do sleep 0.02; done'
    world.submit("k1", {"a": f"{world.note(file='a')}; {wait_for.format('b')}"}, gpu=1)
    world.submit("k2", {"b": f"{world.note(file='b')}; {wait_for.format('a')}"}, gpu=1)
    assert world.run() == 0


def test_cpu_jobs_wait_for_cores(world: World) -> None:
    body = f"{world.note('start')}; sleep 0.2; {world.note('end')}"
    world.submit("k1", {"a": body, "b": body}, ddp=64)  # more ranks than cores, so one at a time
    assert world.run() == 0
    assert world.lines("notes") == ["start", "end", "start", "end"]


def test_an_eval_starts_after_its_own_train_job_and_is_blocked_when_that_failed(world: World) -> None:
    world.submit("t", {"good": f"sleep 0.3; {world.note('train')}", "bad": "exit 3", "skip": "", "other": "exit 0"})
    world.submit("e", {"good": world.note("eval"), "bad": world.note("never")}, job="eval-x", after="t")
    held = world.jobs()["good-eval-x"]
    assert (held.state, held.held_by_dependency, held.reason) == (JobState.PENDING, True, NO_RUNNER)
    assert world.run() == 1
    assert world.lines("notes") == ["train", "eval"]
    jobs = world.jobs()
    assert {name: job.state for name, job in jobs.items()} == {
        "good": JobState.COMPLETED,
        "bad": JobState.FAILED,
        "other": JobState.COMPLETED,
        "good-eval-x": JobState.COMPLETED,
        "bad-eval-x": JobState.BLOCKED,
    }
    assert jobs["bad"].reason.startswith("exit code 3; see ")
    assert jobs["bad"].exit_code == "3:0"
    assert jobs["bad-eval-x"].reason == "the train job of bad failed (exit code 3)"


def test_a_job_that_is_too_big_fails_at_once_and_others_go_on(world: World) -> None:
    world.submit("k1", {"big": world.note("never")}, gpu=3)
    world.submit("k2", {"big": world.note("never")}, job="eval-x", after="k1", gpu=1)
    world.submit("k3", {"small": world.note("ran")}, gpu=1)
    assert world.run() == 1
    assert world.lines("notes") == ["ran"]
    jobs = world.jobs()
    assert jobs["big"].state is JobState.FAILED
    assert jobs["big"].reason.startswith("asks for 3 GPUs, this machine has 2; ")
    assert jobs["big-eval-x"].state is JobState.BLOCKED


def test_a_program_that_cannot_be_started_fails_with_the_reason(world: World) -> None:
    world.submit("k1", {"a": "true"})
    missing = ["/no/such/program"]
    assert run_queue(world.save_dir, display=False, job_command=lambda _s, _i: missing, machine=MACHINE) == 1
    job = world.jobs()["a"]
    assert job.state is JobState.FAILED
    assert "cannot be started: No such file or directory: /no/such/program" in job.reason


def test_a_signal_that_ends_a_job_is_named(world: World) -> None:
    world.submit("k1", {"a": "kill -KILL $$", "b": "kill -SEGV $$"})
    assert world.run() == 1
    jobs = world.jobs()
    assert jobs["a"].reason.startswith("killed by SIGKILL, perhaps because host memory ran out; see ")
    assert jobs["b"].reason.startswith("killed by SIGSEGV; see ")
    assert jobs["b"].exit_code == "0:11"


def test_what_a_job_leaves_behind_is_killed(world: World) -> None:
    world.submit("k1", {"a": "setsid sh -c 'trap \"\" TERM; sleep 60' & setsid env -u X sleep 60 &"})
    assert world.run() == 0
    assert world.processes() == []


def test_a_cancelled_job_never_starts(world: World) -> None:
    first = world.submit("k1", {"a": world.note("a"), "b": world.note("b")})
    world.submit("k2", {"a": world.note("never")}, job="eval-x", after="k1")
    world.scheduler.cancel([f"{first}_0", "local-20200101000000-1_0", "../strange"])
    assert world.states()["a"] is JobState.CANCELLED  # no runner is needed for that
    assert world.run() == 1
    assert world.lines("notes") == ["b"]
    assert world.states() == {"a": JobState.CANCELLED, "b": JobState.COMPLETED, "a-eval-x": JobState.BLOCKED}
    assert world.jobs()["a-eval-x"].reason == "the train job of a was cancelled"
    assert list(LocalPaths(world.save_dir).cancels.iterdir()) == []


def test_a_running_job_is_cancelled_with_term_and_others_go_on(world: World) -> None:
    trap = f"trap '{world.note('term')}; exit 1' TERM; {world.note('up')}; sleep 60 & wait"
    first = world.submit("k1", {"a": trap})
    world.submit("k2", {"b": f"sleep 0.5; {world.note('b')}"})
    driver = world.start_driver()
    world.wait_for(lambda: "up" in world.lines("notes"))
    world.scheduler.cancel([f"{first}_0"])
    output, _ = driver.communicate(timeout=120)
    assert driver.returncode == 1
    assert sorted(world.lines("notes")) == ["b", "term", "up"]
    assert world.states() == {"a": JobState.CANCELLED, "b": JobState.COMPLETED}
    assert "- demo/a train  cancelled\n" in output


def test_ctrl_c_leaves_no_process_and_a_rerun_continues(world: World) -> None:
    once = f'{world.note("start")}; [ -e "$WORLD/again" ] && exit 0; sleep 60 & wait'
    world.submit("k1", {"a": once, "b": once, "c": world.note("c")})
    driver = world.start_driver()
    world.wait_for(lambda: world.lines("notes").count("start") == 2)
    assert world.states()["a"] is JobState.RUNNING
    driver.send_signal(signal.SIGINT)
    output, _ = driver.communicate(timeout=120)
    assert driver.returncode == 130
    lines = output.splitlines()
    assert lines[:3] + sorted(lines[3:5]) + lines[5:] == [
        "> demo/a train  started  1 core",
        "> demo/b train  started  1 core",
        "stopping 2 running, at most 5 s; Ctrl-C again kills at once",
        "- demo/a train  stopped, goes back to the queue",
        "- demo/b train  stopped, goes back to the queue",
        "interrupted, jobs left in the queue: 3; run the same `hpcbench submit` again to continue",
    ]
    assert world.processes() == []
    assert {job.reason for job in world.jobs().values()} == {NO_RUNNER}
    (world.save_dir / "again").touch()
    assert world.run() == 0
    assert set(world.states().values()) == {JobState.COMPLETED}
    assert world.lines("notes").count("start") == 4


def test_a_job_that_ignores_term_is_killed_by_a_second_ctrl_c(world: World) -> None:
    world.submit("k1", {"a": f"trap '' TERM; {world.note('up')}; while :; do sleep 1; done"})
    driver = world.start_driver(grace_s=60.0)
    world.wait_for(lambda: world.lines("notes") == ["up"])
    driver.send_signal(signal.SIGTERM)  # TERM counts as well
    time.sleep(0.4)
    assert driver.poll() is None
    driver.send_signal(signal.SIGINT)
    driver.communicate(timeout=120)
    assert driver.returncode == 130
    assert world.processes() == []
    assert world.states() == {"a": JobState.PENDING}


def test_a_job_that_ignores_term_is_killed_when_its_grace_is_over(world: World) -> None:
    world.submit("k1", {"a": f"trap '' TERM; {world.note('up')}; while :; do sleep 1; done"})
    driver = world.start_driver(grace_s=0.5)
    world.wait_for(lambda: world.lines("notes") == ["up"])
    driver.send_signal(signal.SIGINT)
    driver.communicate(timeout=120)
    assert driver.returncode == 130
    assert world.processes() == []


def test_a_runner_killed_with_kill_9_takes_its_jobs_with_it_and_the_next_goes_on(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    world.submit("k1", {"a": f"{world.note('a')}; sleep 60 & wait", "b": world.note("b")}, ddp=2)
    world.submit("k2", {"a": world.note("never")}, job="eval-x", after="k1")
    driver = world.start_driver()
    world.wait_for(lambda: world.lines("notes") == ["a"] and world.process("a") is not None)
    process = world.process("a")
    assert process is not None
    driver.kill()
    driver.communicate(timeout=120)
    world.wait_for(lambda: not is_alive(process))
    jobs = world.jobs()
    assert jobs["a"].state is JobState.LOST
    assert jobs["a"].reason == "the local runner died while it ran, so its exit code is not known"
    assert (jobs["b"].state, jobs["b"].reason) == (JobState.PENDING, NO_RUNNER)
    assert world.run(display=True) == 1
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in lines if "demo/a" in line] == [
        "✗ demo/a train  lost",
        "- demo/a-eval-x eval-x  blocked",
    ]
    assert world.states() == {"a": JobState.LOST, "b": JobState.COMPLETED, "a-eval-x": JobState.BLOCKED}
    assert world.processes() == []  # not even the sleep that the killed job had started


def test_a_second_runner_follows_the_first_and_takes_its_place_when_it_is_killed(world: World) -> None:
    world.submit("k1", {"a": f"{world.note('a')}; {GO}", "b": world.note("b")}, ddp=2)
    first = world.start_driver()
    world.wait_for(lambda: world.lines("notes") == ["a"])
    second = world.start_driver()
    world.submit("k2", {"c": f'{world.note("c")}; [ -e "$WORLD/again" ] || sleep 60 & wait'})
    assert second.stdout is not None
    assert second.stdout.readline() == f"following the local runner, process {first.pid} on {socket.gethostname()}\n"
    (world.save_dir / "go").touch()
    world.wait_for(lambda: "c" in world.lines("notes") and world.process("c") is not None)
    first.kill()
    first.communicate(timeout=120)
    output, _ = second.communicate(timeout=120)
    assert second.returncode == 1  # c was lost
    assert "✗ demo/c train  lost: the local runner died while it ran" in output
    assert world.lines("notes") == ["a", "b", "c"]
    assert world.states() == {"a": JobState.COMPLETED, "b": JobState.COMPLETED, "c": JobState.LOST}


def test_a_follower_leaves_the_runner_alone(world: World) -> None:
    world.submit("k1", {"a": f"{world.note('a')}; {GO}"})
    first = world.start_driver()
    world.wait_for(lambda: world.lines("notes") == ["a"])
    second = world.start_driver()
    assert second.stdout is not None
    assert second.stdout.readline().startswith("following")
    second.send_signal(signal.SIGINT)
    output, _ = second.communicate(timeout=120)
    assert second.returncode == 130
    assert f"left; process {first.pid} on " in output
    (world.save_dir / "go").touch()
    output, _ = first.communicate(timeout=120)
    assert first.returncode == 0
    assert world.lines("notes") == ["a"]


def test_a_follower_does_not_restart_what_was_stopped_on_purpose(world: World) -> None:
    world.submit("k1", {"a": f"{world.note('a')}; sleep 60 & wait"})
    first = world.start_driver()
    world.wait_for(lambda: world.lines("notes") == ["a"])
    second = world.start_driver()
    assert second.stdout is not None
    assert second.stdout.readline().startswith("following")
    first.send_signal(signal.SIGINT)
    first.communicate(timeout=120)
    output, _ = second.communicate(timeout=120)
    assert (first.returncode, second.returncode) == (130, 130)
    assert "the local runner was stopped; run the same `hpcbench submit` again to continue\n" in output
    assert world.lines("notes") == ["a"]


def test_a_detached_runner_outlives_its_starter(world: World) -> None:
    world.submit("k1", {"a": "not run: a detached runner starts real supervisors, and this job has no job.json"})
    start_detached(world.save_dir)
    world.wait_for(lambda: world.states()["a"] is JobState.FAILED)
    paths = LocalPaths(world.save_dir)
    world.wait_for(lambda: not paths.runner.exists())
    assert "> demo/a train  started  1 core\n" in paths.log.read_text(encoding="utf-8")


FAR = ProcessIdentity(host="another-machine", pid=7, start_ticks=1)


def claim_of(process: ProcessIdentity) -> dict[str, object]:
    return {"schema_version": 1, "process": process.model_dump(), "at": ""}


def test_a_runner_whose_machine_is_gone_is_followed_until_it_has_been_silent_for_long(
    world: World, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for module in (local_claim, local_runner):
        monkeypatch.setattr(module, "SILENCE_S", 1.0)
    world.submit("k1", {"a": world.note("a"), "b": world.note("b")})
    queue = LocalQueue(world.save_dir)
    first = ElementState(status=ElementStatus.RUNNING, process=FAR, token="t", num_starts=1)
    queue.write_state(f"{world.submissions['k1'].scheduler_id}_0", first)
    write_json(LocalPaths(world.save_dir).runner, claim_of(FAR))
    assert world.states()["a"] is JobState.RUNNING
    assert world.run(display=True) == 1
    lines = capsys.readouterr().out.splitlines()
    assert "following the local runner, process 7 on another-machine" in "".join(lines)
    silent = (
        "nothing was heard of the local runner, process 7 on another-machine, for 1 s: this process takes its place"
    )
    assert silent in lines
    assert world.states() == {"a": JobState.LOST, "b": JobState.COMPLETED}


def test_a_runner_that_was_replaced_stops_its_jobs_and_leaves_the_queue_alone(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local_runner, "HEARTBEAT_S", 0.0)
    write_json(world.save_dir / "other.json", claim_of(FAR))
    take = 'cp "$WORLD/other.json" "$WORLD/local/runner.json"'
    world.submit("k1", {"a": f"{world.note('a')}; {take}; sleep 60 & wait"})
    with pytest.raises(SchedulerError, match="process 7 on another-machine runs the local queue now"):
        world.run()
    assert world.processes() == []
    assert last_runner(LocalPaths(world.save_dir)) == FAR
    assert world.states() == {"a": JobState.RUNNING}
