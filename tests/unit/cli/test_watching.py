"""What watching commands show, when they write again, and when they end."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from hpcbench.cli import conventions
from hpcbench.cli import watch as watching
from hpcbench.cli.conventions import EXIT_BROKEN_PIPE, complete_watch
from hpcbench.errors import EXIT_INTERRUPTED
from hpcbench.plan.decide import Options
from hpcbench.plan.requests import plan_suite
from hpcbench.schemas.collection import Collection, ExperimentView, JobView, SuiteView
from hpcbench.schemas.states import JobState
from hpcbench.storage.json_files import write_json
from hpcbench.storage.paths import SuitePaths
from hpcbench.submit.carry_out import submit_suite
from hpcbench.submit.destination import Destination
from tests.support.fake_scheduler import FakeScheduler
from tests.support.job_cases import command, suite, view
from tests.unit.cli.test_cli import run

PENDING, RUNNING, COMPLETED = JobState.PENDING, JobState.RUNNING, JobState.COMPLETED


def job(state: JobState, name: str = "a", **changes: object) -> JobView:
    [request] = plan_suite(suite(command(name)), save_dir=Path("/logs"), inputs={})
    return view(request, state, **changes)


def look(*jobs: JobView, at: str = "now") -> Collection:
    experiments = tuple(ExperimentView(suite="tuners", name=j.experiment, cmd="command", main=j) for j in jobs)
    return Collection(suites=(SuiteView(name="tuners", experiments=experiments),), collected_at=at)


@dataclass
class Snapshots:
    """What the next polls show; a poll beyond the last one is a failure."""

    found: list[Collection] = field(default_factory=list)

    def __call__(self, *_: object, **__: object) -> Iterator[Collection]:
        yield from self.found
        pytest.fail("polled on although all was over")


@pytest.fixture
def snapshots() -> Snapshots:
    return Snapshots()


def watch(snapshots: Snapshots, *, as_json: bool = False) -> None:
    watching.watch_status(Path("/logs"), lambda found: list(found.jobs), every_s=None, as_json=as_json, poll=snapshots)


def test_lines_are_added_only_when_a_state_changes(snapshots: Snapshots, capsys: pytest.CaptureFixture[str]) -> None:
    snapshots.found += [look(job(RUNNING, progress={"step": n, "max_steps": 9}), at=f"at {n}") for n in (1, 2)]
    snapshots.found.append(look(job(COMPLETED), at="at 3"))
    watch(snapshots)
    out = capsys.readouterr().out
    assert [line for line in out.splitlines() if line.startswith("at ")] == ["at 1:", "at 3:"]
    assert "at 3:\n1 experiment, 1 job: 1 completed\n" in out
    assert out.endswith("completed\nno job is under way any more\n")


def test_json_is_one_line_for_each_change_progress_included(
    snapshots: Snapshots, capsys: pytest.CaptureFixture[str]
) -> None:
    snapshots.found += [look(job(RUNNING, progress={"step": n, "max_steps": 9})) for n in (1, 1, 2)]
    snapshots.found.append(look(job(COMPLETED)))
    watch(snapshots, as_json=True)
    values = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [value["jobs"][0]["progress"] for value in values] == ["step 1/9 (11%)", "step 2/9 (22%)", ""]


def test_a_report_is_rewritten_only_when_something_changed(
    snapshots: Snapshots, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    snapshots.found += [
        look(job(state), at=f"at {n}") for n, state in enumerate([PENDING, RUNNING, RUNNING, COMPLETED])
    ]
    written: list[str] = []

    def render(collection: Collection) -> str:
        written.append(collection.collected_at)
        return f"report {collection.collected_at}\n"

    watching.watch_report(tmp_path, (), tmp_path / "report.md", render, every_s=None, poll=snapshots)
    assert written == ["at 0", "at 1", "at 3"]
    assert (tmp_path / "report.md").read_text() == "report at 3\n"
    assert "(1 completed)\nno job is under way any more\n" in capsys.readouterr().out


def test_waiting_ends_with_the_report_and_says_whether_a_job_failed(
    snapshots: Snapshots, capsys: pytest.CaptureFixture[str]
) -> None:
    snapshots.found += [look(job(RUNNING)), look(job(RUNNING)), look(job(JobState.TIMEOUT))]
    assert watching.wait_for_slurm(Path("/logs"), ["tuners"], poll=snapshots)
    assert capsys.readouterr().out.startswith("1 running\n1 timeout\n")


def test_jobs_that_never_start_are_told_while_one_waits_for_them(
    snapshots: Snapshots, capsys: pytest.CaptureFixture[str]
) -> None:
    stuck = [replace(job(PENDING, name=name, reason="is held"), hint="release it") for name in "ab"]
    snapshots.found += [
        look(*stuck, job(PENDING, name="c", reason="waits for GPUs")),
        look(*(job(COMPLETED, name=n) for n in "abc")),
    ]
    assert not watching.wait_for_slurm(Path("/logs"), ["tuners"], poll=snapshots)
    told = "3 pending\n  2 will not start without help: is held; see `hpcbench why`\n3 completed\n"
    assert capsys.readouterr().out.startswith(told)


def test_waiting_for_some_experiments_ends_with_them(snapshots: Snapshots) -> None:
    snapshots.found += [look(job(COMPLETED), job(RUNNING, name="b"), job(JobState.PLANNED, name="c"))]
    assert not watching.wait_for_slurm(Path("/logs"), ["tuners"], ["a"], poll=snapshots)


def test_what_a_limit_left_planned_is_no_failure(snapshots: Snapshots) -> None:
    snapshots.found += [look(job(COMPLETED), job(JobState.PLANNED, name="b"))]
    assert not watching.wait_for_slurm(Path("/logs"), ["tuners"], poll=snapshots)


def test_what_was_submitted_and_never_ran_is_a_failure(snapshots: Snapshots) -> None:
    snapshots.found += [
        look(job(COMPLETED), job(JobState.PLANNED, name="b", reason="did not run: its train job is failed"))
    ]
    assert watching.wait_for_slurm(Path("/logs"), ["tuners"], poll=snapshots)


@pytest.mark.parametrize("far", [{"submitter": "ada"}, {"elsewhere": "other"}])
def test_nobody_waits_for_jobs_that_nobody_here_can_ask(
    far: dict[str, str], snapshots: Snapshots, capsys: pytest.CaptureFixture[str]
) -> None:
    jobs = (job(COMPLETED), job(JobState.UNKNOWN, name="b", **far))
    snapshots.found += [look(*jobs)]
    assert not watching.wait_for_slurm(Path("/logs"), ["tuners"], poll=snapshots)
    assert watching.end_line(jobs).endswith(", besides 1 job of other users or on other clusters")
    assert not watching.is_over((job(JobState.UNKNOWN),))


def test_evals_of_a_training_without_enough_gpu_memory_are_no_failure(snapshots: Snapshots) -> None:
    train, score = plan_suite(suite(command("a", evals=("x",))), save_dir=Path("/logs"), inputs={})
    for state, failed in ((JobState.OUT_OF_MEMORY, False), (JobState.FAILED, True)):
        blocked = view(score, JobState.BLOCKED)
        one = ExperimentView(suite="tuners", name="a", cmd="command", main=view(train, state), evals=(blocked,))
        snapshots.found[:] = [Collection(suites=(SuiteView(name="tuners", experiments=(one,)),), collected_at="now")]
        assert watching.wait_for_slurm(Path("/logs"), ["tuners"], poll=snapshots) is failed
        snapshots.found[:] = [look(replace(blocked, experiment="b"))]
        assert watching.wait_for_slurm(Path("/logs"), ["tuners"], poll=snapshots)


@pytest.mark.parametrize(
    ("typed", "understood"),
    [
        ([], []),
        (["--watch"], ["--watch=0"]),
        (["--watch", "lora"], ["--watch=0", "lora"]),
        (["lora", "--watch", "60"], ["lora", "--watch", "60"]),
        (["--watch=60"], ["--watch=60"]),
        (["--watch", "--json"], ["--watch=0", "--json"]),
    ],
)
def test_watch_takes_a_number_or_none(typed: list[str], understood: list[str]) -> None:
    assert list(complete_watch(typed)) == understood


def test_a_number_that_would_hurt_the_scheduler_is_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, "status", "--watch", "1") == conventions.EXIT_USAGE
    assert "at least 5 seconds" in capsys.readouterr().err


def test_collect_watch_needs_a_file(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(monkeypatch, "collect", "--watch") == conventions.EXIT_USAGE
    assert "name it with -o" in capsys.readouterr().err


def test_the_expected_start_is_shown_and_stands_in_the_json(
    snapshots: Snapshots, capsys: pytest.CaptureFixture[str]
) -> None:
    waiting = job(PENDING, reason="waits for free resources (Resources)", expected_start="2026-11-22T08:00:00")
    snapshots.found += [look(waiting), look(replace(waiting, state=COMPLETED))]
    watch(snapshots, as_json=True)
    first = json.loads(capsys.readouterr().out.splitlines()[0])["jobs"][0]
    assert first["expected_start"] == "2026-11-22T08:00:00"
    assert first["reason"] == "waits for free resources (Resources); expected start 2026-11-22T08:00:00"


@pytest.mark.parametrize("verb", [("status",), ("status", "--json"), ("collect",), ("schema",)])
def test_a_reader_that_leaves_early_gets_no_words(verb: tuple[str, ...], tmp_path: Path) -> None:
    experiments = [{"name": f"e{n:04}", "cmd": "sft", "jobs": ["train"]} for n in range(300)]
    write_json(SuitePaths(tmp_path, "tuners").plan, {"suite": "tuners", "experiments": experiments})
    reading, writing = os.pipe()
    os.close(reading)
    place = () if verb == ("schema",) else ("--save-dir", str(tmp_path))
    done = subprocess.run(
        [sys.executable, "-m", "hpcbench", *verb, *place], stdout=writing, stderr=subprocess.PIPE, check=False
    )
    os.close(writing)
    assert (done.returncode, done.stderr) == (EXIT_BROKEN_PIPE, b"")


def test_ctrl_c_ends_a_watch_without_a_traceback(tmp_path: Path) -> None:
    submit_suite(suite(command("a")), Destination(save_dir=tmp_path, scheduler=FakeScheduler()), Options())
    # Without squeue the job's state is unknown, so the watch goes on.
    command_line = [sys.executable, "-m", "hpcbench", "status", "--watch", "--save-dir", str(tmp_path)]
    environment = {**os.environ, "PATH": "/nowhere", "PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(
        command_line,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    ) as watching_process:
        assert watching_process.stdout is not None
        while "1 unknown" not in watching_process.stdout.readline():
            assert watching_process.poll() is None
        watching_process.send_signal(signal.SIGINT)
        try:
            _, errors = watching_process.communicate(timeout=120)
        finally:
            watching_process.kill()
    assert watching_process.returncode == EXIT_INTERRUPTED
    assert "Traceback" not in errors
