"""Evals that share a scheduler job: one worker in turn, a claim, a log and a record for each."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hpcbench.job import supervisor as supervisor_room
from hpcbench.job.__main__ import run_element
from hpcbench.job.context import JobContext, read_context
from hpcbench.job.stop_reason import StopRequest
from hpcbench.plan.arrays import describe_array, make_arrays
from hpcbench.plan.decide import Options, decide
from hpcbench.plan.inputs import hash_inputs
from hpcbench.schemas import variables
from hpcbench.schemas.arguments import EvalArgs
from hpcbench.schemas.notes import Cancelled
from hpcbench.schemas.record import Record, read_record, write_record
from hpcbench.schemas.request import JobRequest
from hpcbench.schemas.states import JobState
from hpcbench.schemas.submission import write_submission
from hpcbench.storage.json_files import read_json, write_json
from hpcbench.storage.paths import JobPaths, SuitePaths
from hpcbench.submit.job_folder import prepare_job
from tests.support import worker_of_turns
from tests.support.job_cases import CPU, experiment
from tests.unit.plan.test_plan import plan

LOCAL_ID = "local-20261121000000-1_0"


@pytest.fixture(autouse=True)
def worker(monkeypatch: pytest.MonkeyPatch) -> None:
    """Start a worker without torch in place of hpcbench's."""

    def command(module: str, *words: str, python: str | None = None) -> list[str]:
        assert (module, python) == ("hpcbench.worker", None)
        return [sys.executable, "-I", "-S", worker_of_turns.__file__, *words]

    monkeypatch.setattr("hpcbench.job.launch.module_command", command)
    monkeypatch.setattr(supervisor_room, "POLL_S", 0.02)
    monkeypatch.setattr(supervisor_room, "LATE_SIGNAL_S", 0.0)
    monkeypatch.setattr(supervisor_room, "CANCEL_POLL_S", 0.0)
    monkeypatch.setattr("hpcbench.job.environment._gpus", lambda _: None)


class Shared:
    """One element with evals of these datasets, as it was submitted."""

    def __init__(self, save_dir: Path, *datasets: str) -> None:
        args = {name: EvalArgs(together=True) for name in datasets}
        values: dict[str, Any] = {"device": "cpu", "eval_requirements": CPU, "cmd": "eval"}
        requests = plan(experiment("a", eval_dataset=datasets, eval_args=args, **values))
        [array] = make_arrays(decide(requests, {}, Options(), cluster="local"), 10)
        self.suite = SuitePaths(save_dir, "tuners")
        self.submission = describe_array(array, "local", None)
        write_submission(self.suite, self.submission)
        self.requests: tuple[JobRequest, ...] = requests
        for request in requests:
            write_json(self.job(request.job).request, request.model_dump(mode="json"))

    def job(self, name: str) -> JobPaths:
        return self.suite.job("a", name)

    def context(self, restarts: int = 0) -> JobContext:
        environ = {variables.LOCAL_ID: LOCAL_ID, variables.LOCAL_RESTART_COUNT: str(restarts)}
        return read_context(self.suite.submission(self.submission.key), 0, environ)

    def run(self, stop: StopRequest | None = None, *, restarts: int = 0) -> int:
        return run_element(self.context(restarts), stop or StopRequest())

    def record(self, name: str) -> Record | None:
        return read_record(self.job(name).record)

    def states(self) -> list[JobState | None]:
        records = [self.record(request.job) for request in self.requests]
        return [None if record is None else record.state for record in records]

    def pids(self) -> list[str]:
        """Return the worker's process id in each job's newest log."""
        logs = [job.attempts()[-1].log for r in self.requests if (job := self.job(r.job)).attempts()]
        return [log.read_text().splitlines()[0].rpartition(" ")[2] for log in logs]


def test_one_worker_runs_all_and_each_job_has_its_record_claim_and_log(tmp_path: Path) -> None:
    shared = Shared(tmp_path, "x", "y", "z")
    assert shared.run() == 0
    assert shared.states() == [JobState.COMPLETED] * 3
    assert len(set(shared.pids())) == 1
    for name in ("eval-x", "eval-y", "eval-z"):
        job, record = shared.job(name), shared.record(name)
        assert record is not None
        assert (record.job, len(record.attempts)) == (name, 1)
        assert job.attempt(1).log.read_text().startswith(f"{name} in process ")
        claim, kept = read_json(job.claim), read_json(job.attempt(1).claim)
        assert claim is not None
        assert (claim["scheduler_id"], claim) == (LOCAL_ID, kept)
    assert not is_there(shared.pids()[0])


def test_a_worker_that_dies_fails_its_own_job_and_a_new_one_runs_the_rest(tmp_path: Path) -> None:
    shared = Shared(tmp_path, "x", "crash", "y", "z")
    assert shared.run() == 1
    assert shared.states() == [JobState.COMPLETED, JobState.FAILED, JobState.COMPLETED, JobState.COMPLETED]
    first, crashed, *rest = shared.pids()
    assert first == crashed
    assert len({first, *rest}) == 2
    record = shared.record("eval-crash")
    assert record is not None
    assert record.cause is not None
    assert (record.cause.message, record.cause.log) == ("killed by SIGSEGV", "attempt-1/output.log")


def test_a_signal_stops_the_job_whose_turn_it_is_and_the_others_stay_planned(tmp_path: Path) -> None:
    shared = Shared(tmp_path, "x", "slow", "y")
    stop = StopRequest()
    later(shared.job("eval-slow").claim.exists, lambda: stop.note(signal.SIGTERM))
    assert shared.run(stop) == 1
    assert shared.states() == [JobState.COMPLETED, JobState.CANCELLED, None]
    assert not shared.job("eval-y").claim.exists()


def test_a_start_after_a_requeue_goes_on_where_the_one_before_was_stopped(tmp_path: Path) -> None:
    shared = Shared(tmp_path, "crash", "slow", "y")
    stop = StopRequest()
    later(shared.job("eval-slow").claim.exists, lambda: stop.note(signal.SIGUSR2))
    assert shared.run(stop) == 1
    assert shared.states() == [JobState.FAILED, JobState.TIMEOUT, None]
    cancel(shared, "eval-slow")
    assert shared.run(restarts=1) == 1
    assert shared.states() == [JobState.FAILED, JobState.TIMEOUT, JobState.COMPLETED]
    assert [len(shared.job(request.job).attempts()) for request in shared.requests] == [1, 1, 1]


def test_one_of_several_is_cancelled_by_its_note_alone(tmp_path: Path) -> None:
    shared = Shared(tmp_path, "slow", "x", "y")
    cancel(shared, "eval-x")
    later(shared.job("eval-slow").claim.exists, lambda: cancel(shared, "eval-slow"))
    assert shared.run() == 1
    assert shared.states() == [JobState.CANCELLED, None, JobState.COMPLETED]
    assert not shared.job("eval-x").attempts()


def test_a_job_that_another_submission_runs_is_left_to_it(tmp_path: Path) -> None:
    shared = Shared(tmp_path, "x", "y")
    owner = {"token": "t", "attempt": 1, "key": "other", "scheduler_id": "9_0", "host": "node7", "restart_count": 0}
    write_json(shared.job("eval-x").claim, {**owner, "claimed_at": "2099-01-01T00:00:00.000000Z"})
    assert shared.run() == 1
    assert shared.states() == [None, JobState.COMPLETED]
    claim = read_json(shared.job("eval-x").claim)
    assert claim is not None
    assert claim["token"] == "t"  # no secret


@pytest.mark.parametrize(("changed", "second"), [("task", JobState.FAILED), ("model", JobState.COMPLETED)])
def test_what_changes_after_the_first_turn_counts_unless_it_stays_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changed: str, second: JobState
) -> None:
    shared = Shared(tmp_path, "x", "y")
    files = {name: tmp_path / f"{name}.json" for name in ("task", "model")}
    for file in files.values():
        file.write_text("one")
    inputs = hash_inputs(map(str, files.values()))
    for request in shared.requests:
        assert request.args is not None
        args = request.args.model_copy(update={"model_id_or_path": str(files["model"])})
        asked = request.model_copy(update={"inputs": inputs, "args": args})
        write_json(shared.job(request.job).request, asked.model_dump(mode="json"))

    def write(record: Record, path: Path) -> None:
        write_record(record, path)
        files[changed].write_text("two")

    monkeypatch.setattr(supervisor_room, "write_record", write)
    shared.run()
    assert shared.states() == [JobState.COMPLETED, second]


def test_one_that_is_retried_after_its_cancellation_is_left_to_its_new_job(tmp_path: Path) -> None:
    shared = Shared(tmp_path, "x", "y", "z")
    cancel(shared, "eval-y")
    prepare_job(shared.suite, shared.requests[1])  # as `hpcbench retry` does while the shared job goes on
    assert shared.run() == 0
    assert shared.states() == [JobState.COMPLETED, None, JobState.COMPLETED]
    assert not shared.job("eval-y").claim.exists()


def test_what_the_launcher_says_of_a_later_turns_end_is_in_that_turns_log_too(tmp_path: Path) -> None:
    shared = Shared(tmp_path, "x", "crash")
    shared.run()
    log = shared.job("eval-crash").attempt(1).log.read_text()
    assert log.splitlines()[1:] == [worker_of_turns.LAUNCHER_SAYS]


def cancel(shared: Shared, name: str) -> None:
    Cancelled(scheduler_id=LOCAL_ID).write(shared.job(name).cancelled)


def later(holds: Callable[[], bool], act: Callable[[], None], *, delay_s: float = 0.1) -> None:
    """Act in a thread once a condition holds."""

    def wait() -> None:
        for _ in range(1000):
            if holds():
                time.sleep(delay_s)
                act()
                return
            time.sleep(0.01)

    threading.Thread(target=wait, daemon=True).start()


def is_there(pid: str) -> bool:
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return False
    return True
