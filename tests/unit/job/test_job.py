"""What happens around a job before torch: claims, endings, command lines."""

from __future__ import annotations

import os
import re
import signal
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest

from hpcbench.job import environment
from hpcbench.job import supervisor as supervisor_room
from hpcbench.job.__main__ import run_attempt
from hpcbench.job.attempts import earlier_attempts
from hpcbench.job.context import JobContext
from hpcbench.job.job_claim import holds_claim, may_take_over, take_claim
from hpcbench.job.launch import build_launch
from hpcbench.job.outcome import Ending, conclude
from hpcbench.job.parent_check import judge_parent
from hpcbench.job.stop_reason import StopRequest
from hpcbench.processes.process_tree import this_process
from hpcbench.schemas.record import Attempt, Cause, Record, read_record
from hpcbench.schemas.request import Resources
from hpcbench.schemas.states import JobState
from hpcbench.schemas.submission import JobSettings
from hpcbench.status.logs import log_tail
from hpcbench.storage.clock import now_text
from hpcbench.storage.json_files import create_json, read_json, write_json
from tests.support.job_cases import array_job, command, experiment, record
from tests.unit.plan.test_plan import plan


@pytest.fixture
def context(tmp_path: Path) -> JobContext:
    return array_job(tmp_path)


def test_a_job_finds_its_folder_from_the_array_index(context: JobContext) -> None:
    assert context.scheduler_id == "98_3"
    assert context.paths.folder == context.suite_paths.folder / "a" / "train"


def test_of_two_starts_only_one_gets_the_claim(context: JobContext) -> None:
    first = take_claim(context)
    assert first is not None
    assert first.attempt == 1
    other = replace(context, scheduler_id="200_3", host="elsewhere")
    assert take_claim(other) is None
    assert holds_claim(context.paths.claim, first.token)


def test_the_same_job_requeued_takes_over(context: JobContext) -> None:
    first = take_claim(replace(context, host="node1"))
    second = take_claim(replace(context, host="node2", restart_count=1))
    assert first is not None
    assert second is not None
    assert not holds_claim(context.paths.claim, first.token)


def test_a_claim_without_a_start_time_is_held_while_its_pid_exists(context: JobContext) -> None:
    owner = {"scheduler_id": "1_0", "key": "old", "host": context.host, "pid": os.getpid(), "claimed_at": now_text()}
    assert not may_take_over(context, owner)
    assert not may_take_over(context, {**owner, "process_start": this_process().start_ticks})
    assert may_take_over(context, {**owner, "process_start": 0})


def test_a_submission_made_after_the_owner_was_seen_dead_takes_over(context: JobContext) -> None:
    owner = {
        "scheduler_id": "1_0",
        "key": "old",
        "host": "node9",
        "pid": 1,
        "claimed_at": "2026-11-20T00:00:00.000000Z",
    }
    assert may_take_over(context, owner)
    owner["claimed_at"] = "2026-11-22T00:00:00.000000Z"
    assert not may_take_over(context, owner)


def test_a_finished_job_is_not_run_again(context: JobContext) -> None:
    write_json(context.paths.record, record(experiment="a").model_dump(mode="json"))
    assert take_claim(context) is None


def test_a_claim_that_its_writer_never_finished_is_taken_over(context: JobContext) -> None:
    waits: list[float] = []
    context.paths.folder.mkdir(parents=True, exist_ok=True)
    context.paths.claim.write_text('{"tok')
    claim = take_claim(context, sleep=waits.append)
    assert claim is not None
    assert holds_claim(context.paths.claim, claim.token)
    assert sum(waits) >= 3


def test_create_json_lets_one_writer_win(tmp_path: Path) -> None:
    assert create_json(tmp_path / "x.json", {"who": 1})
    assert not create_json(tmp_path / "x.json", {"who": 2})
    assert read_json(tmp_path / "x.json") == {"who": 1}
    assert [path.name for path in tmp_path.iterdir()] == ["x.json"]


def test_an_eval_runs_only_on_the_completed_record_of_its_own_configuration() -> None:
    train, score = plan(command("a", evals=("x",)))
    good = record(experiment="a", fingerprint=train.fingerprint)
    assert judge_parent(score, good) is None
    assert judge_parent(score, None) == "its train job has left no record"
    assert (
        judge_parent(score, record(fingerprint="0" * 64))
        == "the record of its train job belongs to another configuration"
    )
    failed = record(JobState.FAILED, fingerprint=train.fingerprint)
    assert judge_parent(score, failed) == "its train job is failed"


ENDINGS = [
    (Ending(exit_code=3), {}, JobState.FAILED, "exit code 3"),
    (Ending(exit_code=-signal.SIGSEGV), {}, JobState.FAILED, "killed by SIGSEGV"),
    (Ending(exit_code=-signal.SIGKILL), {}, JobState.FAILED, "killed by SIGKILL"),
    (
        Ending(exit_code=-signal.SIGKILL, oom_kills=1),
        {},
        JobState.HOST_OUT_OF_MEMORY,
        "killed because the node's memory was not enough",
    ),
    (Ending(exit_code=0), {}, JobState.FAILED, "ended with exit code 0 but left no metrics"),
    (
        Ending(exit_code=1),
        {"type": "OutOfMemoryError", "message": "CUDA out of memory. Tried to allocate 2 GiB"},
        JobState.OUT_OF_MEMORY,
        "CUDA out of memory. Tried to allocate 2 GiB",
    ),
    (Ending(exit_code=1), {"type": "ValueError", "message": "no rows"}, JobState.FAILED, "no rows"),
    (
        Ending(exit_code=-signal.SIGKILL, stop_reason="terminate", killed_by_us=True),
        {},
        JobState.CANCELLED,
        "terminated by the scheduler or the user; no checkpoint was made",
    ),
]


@pytest.mark.parametrize(("ending", "failure", "state", "message"), ENDINGS)
def test_how_an_attempt_ended(
    context: JobContext, ending: Ending, failure: dict[str, str], state: JobState, message: str
) -> None:
    request = plan(experiment("a"))[0]
    attempt = context.paths.attempt(1)
    attempt.folder.mkdir(parents=True)
    if failure:
        write_json(attempt.failure(0), failure)
    found, cause, metrics = conclude(request, ending, job=context.paths, attempt=attempt)
    assert found is state
    assert cause is not None
    assert cause.message == message
    assert metrics is None


def test_a_worker_that_left_on_request_is_interrupted_with_its_step(context: JobContext) -> None:
    attempt = context.paths.attempt(1)
    write_json(attempt.interrupted, {"step": 40})
    ending = Ending(exit_code=0, stop_reason="timeout")
    state, cause, _ = conclude(plan(experiment("a"))[0], ending, job=context.paths, attempt=attempt)
    assert state is JobState.TIMEOUT
    assert cause is not None
    assert cause.message == "the time limit came near; checkpoint at step 40"


def test_the_log_tail_keeps_the_last_state_of_progress_bars(tmp_path: Path) -> None:
    log = tmp_path / "output.log"
    log.write_bytes(b"start\n 10%\r 20%\r100%\n\x1b[31mred\x1b[0m \xff\xe4\xb8\xad\n\n")
    assert log_tail(log) == ("start", "100%", "red \ufffd\u4e2d")


def test_ranks_are_started_by_torchrun_and_one_rank_without_it(context: JobContext) -> None:
    one, *_ = plan(experiment("a"))
    two, *_ = plan(experiment("a", requirements=Resources(gpu=2, ddp=2)))
    attempt = context.paths.attempt(1)
    environ = {"PATH": "/bin", "RANK": "5", "USER": "me"}
    alone = build_launch(one, context, attempt=attempt, token="t", environ=environ)
    ddp = build_launch(two, context, attempt=attempt, token="t", environ=environ)
    assert alone.argv[1:4] == ("-P", "-m", "hpcbench.worker")
    assert ddp.argv[1:8] == (
        "-P",
        "-m",
        "torch.distributed.run",
        "--nproc-per-node=2",
        "--signals-to-handle=SIGQUIT",
        "--no-python",
        "--standalone",
    )
    assert ddp.argv[8:] == alone.argv
    assert "RANK" not in alone.env
    assert alone.env["HPCBENCH_CLAIM"] == "t"
    assert alone.env["HF_HUB_OFFLINE"] == "1"


@pytest.mark.parametrize(
    ("settings", "folder", "per_node"),
    [
        ({}, "{save_dir}/.tokens", "0"),
        ({"scratch": "/scratch/$USER"}, "/scratch/me/.tokens", "0"),
        ({"tokenized_data": "node"}, "/local/hpcbench-me.tokens", "1"),
        ({"tokenized_data": "node", "scratch": "/scratch"}, "/local/hpcbench-me.tokens", "1"),
    ],
)
def test_trainings_are_told_where_tokenized_rows_are(
    context: JobContext, monkeypatch: pytest.MonkeyPatch, settings: dict[str, str], folder: str, per_node: str
) -> None:
    monkeypatch.setenv("USER", "me")
    train, evaluation = plan(experiment("a", eval_dataset=("arc",)))
    there = replace(context, settings=JobSettings.model_validate(settings))
    environ = {"PATH": "/bin", "USER": "me", "SLURM_TMPDIR": "/local"}
    attempt = context.paths.attempt(1)
    found = build_launch(train, there, attempt=attempt, token="t", environ=environ).env
    assert found["HPCBENCH_TOKENIZED_DATA"] == folder.format(save_dir=context.suite_paths.save_dir)
    assert found["HPCBENCH_TOKENIZED_DATA_PER_NODE"] == per_node
    other = build_launch(evaluation, there, attempt=attempt, token="t", environ=environ).env
    assert "HPCBENCH_TOKENIZED_DATA" not in other


def test_several_nodes_meet_at_the_head_node(context: JobContext) -> None:
    request, *_ = plan(experiment("a", requirements=Resources(gpu=8, ddp=8, nodes=2)))
    write_json(context.paths.claim, {"host": "node1"})
    second = replace(context, node_rank=1, num_nodes=2)
    launch = build_launch(request, second, attempt=context.paths.attempt(1), token="t", environ={"PATH": "/bin"})
    assert "--nproc-per-node=4" in launch.argv
    assert "--node-rank=1" in launch.argv
    assert "--rdzv-endpoint=node1:10983" in launch.argv


def test_the_experiments_env_wins_over_the_inherited_one(context: JobContext) -> None:
    request, *_ = plan(experiment("a", env={"HF_HUB_OFFLINE": "0", "MINE": "yes"}))
    launch = build_launch(request, context, attempt=context.paths.attempt(1), token="t", environ=dict(os.environ))
    assert launch.env["HF_HUB_OFFLINE"] == "0"
    assert launch.env["MINE"] == "yes"


def test_words_of_a_command_reach_the_program_unchanged(context: JobContext) -> None:
    hostile = ("printf", "%s", "a; touch /tmp/pwned", "$(id)", "`id`", "x\ny")
    base = command("a")
    assert base.command is not None
    request, *_ = plan(replace(base, command=base.command.model_copy(update={"command": hostile})))
    launch = build_launch(request, context, attempt=context.paths.attempt(1), token="t", environ={})
    assert launch.argv == hostile


def run_program(context: JobContext, program: tuple[str, ...]) -> Record:
    """Run a program under a supervisor, as a job would."""
    base = command("a")
    assert base.command is not None
    request, *_ = plan(replace(base, command=base.command.model_copy(update={"command": program})))
    claim = take_claim(context)
    assert claim is not None
    found = supervisor_room.Supervisor(context=context, request=request, claim=claim).run()
    assert found is not None
    return found


def test_a_running_program_is_heard_of_through_its_claim(context: JobContext, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor_room, "HEARTBEAT_S", 0.0)
    claim = context.paths.claim
    run_program(context, ("sh", "-c", f'touch -d 2020-01-01 "{claim}"; sleep 0.5'))
    assert time.time() - claim.stat().st_mtime < 60


def test_a_program_that_dies_of_term_before_its_supervisor_hears_of_it_was_cancelled(context: JobContext) -> None:
    base = command("a")
    assert base.command is not None
    dies = base.command.model_copy(update={"command": ("sh", "-c", "kill -TERM $$")})
    request, *_ = plan(replace(base, command=dies))
    claim = take_claim(context)
    assert claim is not None
    stop = StopRequest()
    late = threading.Timer(0.6, stop.note, [signal.SIGTERM])
    late.start()
    found = supervisor_room.Supervisor(context=context, request=request, claim=claim, stop=stop).run()
    late.join()
    assert found is not None
    assert found.state is JobState.CANCELLED


def test_the_machine_is_asked_while_the_program_runs(context: JobContext, monkeypatch: pytest.MonkeyPatch) -> None:
    # After TERM there may be no time left for it.
    flag = context.suite_paths.save_dir / "asked"

    def ask(_: object) -> dict[str, object]:
        flag.touch()
        return {"names": ["A100"]}

    monkeypatch.setattr(environment, "_gpus", ask)
    waits = ("sh", "-c", f'for i in 1 2 3 4 5 6 7 8 9; do [ -e "{flag}" ] && exit 0; sleep 0.2; done; exit 1')
    found = run_program(context, waits)
    assert (found.state, found.environment["gpus"]) == (JobState.COMPLETED, {"names": ["A100"]})


def test_a_driver_that_never_answers_holds_no_job_up(context: JobContext, monkeypatch: pytest.MonkeyPatch) -> None:
    answers = threading.Event()
    monkeypatch.setattr(environment, "_gpus", lambda _: answers.wait(60))
    monkeypatch.setattr(supervisor_room, "QUERY_TIMEOUT_S", 0.1)
    found = run_program(context, ("true",))
    answers.set()
    assert (found.state, found.environment["gpus"]) == (JobState.COMPLETED, None)
    assert found.environment["python"]


def test_words_that_are_no_text_are_no_reason_to_fail(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    shim = tmp_path / "nvidia-smi"
    shim.write_bytes(b"#!/bin/sh\nprintf '0, caf\\351, 81920, 550.1\\n'\n")
    shim.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    found = environment.describe_environment(environment.MachineQuestion(""))
    assert found["gpus"]["names"] == ["caf\N{REPLACEMENT CHARACTER}"]


def test_a_mistake_of_our_own_leaves_a_record(context: JobContext, monkeypatch: pytest.MonkeyPatch) -> None:
    def conclude_wrongly(*_: object, **__: object) -> None:
        raise ZeroDivisionError("by nothing")

    monkeypatch.setattr(supervisor_room, "conclude", conclude_wrongly)
    request, *_ = plan(command("a"))
    claim = take_claim(context)
    assert claim is not None
    assert run_attempt(context, request, claim, checkpoint=None, stop=StopRequest()) == 1
    found = read_record(context.paths.record)
    assert found is not None
    assert found.cause is not None
    assert (found.state, found.cause.type) == (JobState.FAILED, "internal_error")
    assert re.fullmatch(
        r"a mistake in hpcbench: ZeroDivisionError: by nothing \(test_job.py:\d+\)", found.cause.message
    )


def test_attempts_that_were_preempted_or_killed_are_told_apart(context: JobContext) -> None:
    job = context.paths
    interrupted = Cause(type="interrupted", message="terminated by the scheduler or the user; checkpoint at step 5")
    terminated = (
        Attempt(
            number=1,
            state=JobState.CANCELLED,
            started_at="2026-11-21T00:00:00.000Z",
            finished_at="2026-11-21T00:01:00.000Z",
            duration_s=60,
            scheduler_id="98_3",
            host="node1",
            cause=interrupted,
        ),
    )
    written = record(JobState.CANCELLED, metrics=None, attempts=terminated, cause=interrupted)
    write_json(job.attempt(1).record, written.model_dump(mode="json"))
    claim = take_claim(replace(context, restart_count=1))
    assert claim is not None
    write_json(job.attempt(2).claim, read_json(job.claim) or {})
    job.attempt(3).folder.mkdir()

    found = earlier_attempts(job, before=4, scheduler_id="98_3")
    assert [(attempt.number, attempt.state) for attempt in found] == [(1, JobState.PREEMPTED), (2, JobState.LOST)]
    assert found[0].cause is not None
    assert found[0].cause.message == "preempted; checkpoint at step 5"
    assert found[1].restart_count == 1
    # Another submission: nobody put that one back into the queue.
    assert earlier_attempts(job, before=2, scheduler_id="99_3")[0].state is JobState.CANCELLED
