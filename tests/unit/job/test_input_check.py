"""A job that reads local files compares them with those of its submit, at each start."""

from __future__ import annotations

import json
import os
import signal
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from hpcbench.cli import main
from hpcbench.job.input_check import RESTORE, find_changed_input
from hpcbench.job.job_claim import take_claim
from hpcbench.job.stop_reason import StopRequest
from hpcbench.job.supervisor import Supervisor
from hpcbench.plan.fingerprint import describe_change
from hpcbench.plan.inputs import hash_inputs
from hpcbench.plan.requests import plan_suite
from hpcbench.report.next_steps import next_steps
from hpcbench.schemas.arguments import SftArgs
from hpcbench.schemas.record import INPUTS_CHANGED, Cause, Record, read_record
from hpcbench.schemas.request import JobRequest, read_request
from hpcbench.schemas.states import JobState
from hpcbench.storage.paths import JobPaths
from hpcbench.submit.submit_plan import unique_local_paths
from tests.support.job_cases import array_job, experiment, record, suite, view


@pytest.fixture
def data(tmp_path: Path) -> Path:
    file = tmp_path / "train.jsonl"
    file.write_text('{"query": "a", "response": "b"}\n', encoding="utf-8")
    return file


def train_request(data: Path, save_dir: Path) -> JobRequest:
    mine = suite(experiment("a", args=SftArgs(model_type="qwen2.5-7b-instruct", dataset=(str(data),))))
    paths = unique_local_paths(plan_suite(mine, save_dir=save_dir, inputs={}))
    return plan_suite(mine, save_dir=save_dir, inputs=hash_inputs(paths))[0]


def test_a_request_carries_the_hashes_of_what_its_job_reads(data: Path, tmp_path: Path) -> None:
    request = train_request(data, tmp_path)
    assert request.inputs == hash_inputs([str(data)])


def test_unchanged_files_pass(data: Path, tmp_path: Path) -> None:
    request = train_request(data, tmp_path)
    os.utime(data, (1, 1))
    assert find_changed_input(request, StopRequest()) is None, "their times do not count"


def test_a_request_of_an_earlier_version_passes(data: Path, tmp_path: Path) -> None:
    request = train_request(data, tmp_path).model_copy(update={"inputs": {}})
    data.unlink()
    assert find_changed_input(request, StopRequest()) is None


def test_an_edited_file_is_named_with_both_hashes(data: Path, tmp_path: Path) -> None:
    request = train_request(data, tmp_path)
    before = request.inputs[str(data)]
    data.write_text('{"query": "a", "response": "c"}\n', encoding="utf-8")
    now = hash_inputs([str(data)])[str(data)]
    message = f"{data}: changed since it was submitted; expected: the content with hash {before[:12]}, found {now[:12]}"
    assert find_changed_input(request, StopRequest()) == Cause(type=INPUTS_CHANGED, message=message, hint=RESTORE)


def test_a_file_that_is_gone_is_named(data: Path, tmp_path: Path) -> None:
    request = train_request(data, tmp_path)
    data.unlink()
    found = find_changed_input(request, StopRequest())
    assert found is not None
    assert found.message == f"{data}: is not there any more, or not on this node"


def test_a_stop_ends_the_reading_of_one_large_file(data: Path, tmp_path: Path) -> None:
    with data.open("ab") as stream:
        stream.truncate(8 << 20)
    request = train_request(data, tmp_path / "logs")
    stop = StopRequest()
    beats: list[int] = []

    def beat() -> None:
        beats.append(1)
        if len(beats) == 3:
            stop.note(signal.SIGTERM)

    assert find_changed_input(request, stop, beat=beat) is None
    assert len(beats) == 3


def test_a_later_attempt_compares_again(data: Path, tmp_path: Path) -> None:
    context = array_job(tmp_path)
    request = train_request(data, tmp_path).model_copy(update={"cmd": "command"})
    data.write_text("{}\n", encoding="utf-8")
    for restarts in (0, 1):
        start = replace(context, restart_count=restarts)
        claim = take_claim(start)
        assert claim is not None
        Supervisor(context=start, request=request, claim=claim).run()
        left = read_record(context.paths.record)
        assert left is not None
        assert left.cause is not None
        assert (left.state, left.cause.type) == (JobState.FAILED, INPUTS_CHANGED)
        assert len(left.attempts) == restarts + 1
    assert not context.paths.attempt(2).log.exists(), "nothing was started"


def test_what_plan_says_of_a_changed_file_names_it(data: Path, tmp_path: Path) -> None:
    before = train_request(data, tmp_path)
    data.write_text("{}\n", encoding="utf-8")
    assert describe_change(before, train_request(data, tmp_path)) == f"the content of {data} changed"


def test_the_next_steps_lead_on_with_either_content(data: Path, tmp_path: Path) -> None:
    request = train_request(data, tmp_path)
    failed = record(JobState.FAILED, cause=Cause(type=INPUTS_CHANGED, message="x"))
    steps = next_steps(view(request, JobState.FAILED, record=failed))
    assert [step.remark for step in steps] == ["to run on what is there now", "after putting back what was there"]


def test_an_eval_compares_its_own_tasks_and_force_runs_it_on_the_new_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    tasks = tmp_path / "tasks"
    tasks.mkdir()
    (tasks / "a.yaml").write_text("task: a\n", encoding="utf-8")
    code = "import os; open(os.environ['HPCBENCH_METRICS'], 'w').write('{\"acc\": 1}')"
    value = {
        "cmd": "command",
        "device": "cpu",
        "requirements": {"gpu": 0},
        "args": {"command": ["cp", "/dev/null", str(tasks / "a.yaml")]},  # while the eval waits
        "eval_dataset": ["mine"],
        "eval_args": {"command": [sys.executable, "-c", code], "include_path": [str(tasks)]},
        "experiment": [{"name": "e"}],
    }
    Path("suite.yaml").write_text(json.dumps(value), encoding="utf-8")
    job = JobPaths(tmp_path / "logs" / "suite" / "e" / "eval-mine")

    def submit(*more: str) -> Record:
        monkeypatch.setattr(sys, "argv", ["hpcbench", "submit", "suite.yaml", "--cluster", "local", *more])
        with pytest.raises(SystemExit):
            main()
        found = read_record(job.record)
        assert found is not None
        return found

    first = submit()
    assert first.cause is not None
    assert (first.state, first.cause.type) == (JobState.FAILED, INPUTS_CHANGED)
    assert submit("--force").state is JobState.COMPLETED
    assert read_request(job.request).inputs == hash_inputs([str(tasks)])
