"""The command line's ways out: exit codes and messages, never a traceback."""

from __future__ import annotations

import json
import os
import sys
import tracemalloc
from collections import Counter
from functools import partial
from pathlib import Path

import pytest

from hpcbench import cli
from hpcbench.cli import conventions
from hpcbench.cli.output import print_file
from hpcbench.cli.submit import submit_in_turn
from hpcbench.cluster.save_dir import usual_save_dir
from hpcbench.plan.decide import Options
from hpcbench.scheduler.local.scheduler import LocalScheduler
from hpcbench.schemas.cluster_profile import ClusterProfile
from hpcbench.schemas.states import JobState
from hpcbench.schemas.suite import Suite
from hpcbench.status.gather import gather
from hpcbench.status.logs import log_files
from hpcbench.storage.json_files import write_json
from hpcbench.storage.paths import JobPaths, SuitePaths
from hpcbench.submit import carry_out as submit_room
from hpcbench.submit.carry_out import submit_suite
from hpcbench.submit.destination import Destination
from hpcbench.submit.suite_claim import claim_suite
from tests.support.fake_scheduler import FakeScheduler
from tests.support.job_cases import command


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    """Run the command line here and return its exit code."""
    monkeypatch.setattr(sys, "argv", ["hpcbench", *arguments])
    with pytest.raises(SystemExit) as end:
        cli.main()
    return int(end.value.code or 0)


def test_a_file_that_cannot_be_written_is_a_message(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_json(SuitePaths(tmp_path, "tuners").plan, {"suite": "tuners"})
    target = tmp_path / "tuners" / "suite.json" / "report.md"
    assert run(monkeypatch, "collect", "--save-dir", str(tmp_path), "-o", str(target)) == conventions.EXIT_FAILED
    assert str(target.parent) in capsys.readouterr().err


def write_suites(folder: Path, *names: str) -> list[str]:
    """Write suites of one trivial experiment, all called `a`; return the files."""
    value = {"cmd": "command", "device": "cpu", "args": {"command": ["true"]}, "experiment": [{"name": "a"}]}
    files = [folder / f"{name}.yaml" for name in names]
    for file in files:
        file.write_text(json.dumps(value))
    return [str(file) for file in files]


def test_an_error_of_the_second_suite_leaves_no_job_of_the_first_without_a_runner(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(submit_room, "claim_suite", partial(claim_suite, patience_s=0.0))
    root = tmp_path / "logs"
    write_json(SuitePaths(root, "second").claim, {"host": "login2", "pid": 1, "token": "t"})
    files = write_suites(tmp_path, "first", "second", "third")
    code = run(monkeypatch, "submit", *files, "--cluster", "local", "--save-dir", str(root))
    printed = capsys.readouterr().err
    assert "second: process 1 on login2 is submitting this suite" in printed
    assert "not submitted: second, third; what was queued before runs now" in printed
    assert {(job.suite, job.state) for job in gather(root).jobs} == {("first", JobState.COMPLETED)}
    assert code == conventions.EXIT_USAGE


@pytest.fixture
def queued(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a save directory with one job in the local queue and one on a cluster that cannot be asked."""
    monkeypatch.setattr("hpcbench.scheduler.registry.shutil.which", lambda _: None)
    for scheduler, name in ((LocalScheduler(tmp_path), "near"), (FakeScheduler(name="far"), "away")):
        suite = Suite(name=name, file=tmp_path / f"{name}.yaml", experiments=(command(f"{name}-1"),))
        submit_suite(suite, Destination(save_dir=tmp_path, scheduler=scheduler), Options())
    return tmp_path


@pytest.mark.parametrize(
    "words", [["cancel"], ["status"], ["status", "--watch"], ["why"], ["clean"], ["retry"], ["logs"]]
)
def test_a_name_that_matches_nothing_is_refused(
    words: list[str], queued: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    good = [] if words == ["logs"] else ["near-1"]
    assert run(monkeypatch, *words, *good, "naer-1", "--save-dir", str(queued)) == conventions.EXIT_USAGE
    printed = capsys.readouterr()
    assert "naer-1" in printed.err
    assert "did you mean 'near-1'?" in printed.err
    assert printed.out == ""


def test_a_suite_that_is_not_there_is_refused(
    queued: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, "collect", "near", "qwen", "--save-dir", str(queued)) == conventions.EXIT_USAGE
    assert "no such suite: qwen" in (printed := capsys.readouterr().err)
    assert "there are: away, near" in printed
    assert run(monkeypatch, "collect", "near", "--save-dir", str(queued)) == 0


@pytest.mark.parametrize("verb", ["submit", "plan"])
def test_an_only_that_matches_nothing_is_refused(
    verb: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    [file] = write_suites(tmp_path, "first")
    where = ["--cluster", "local", "--save-dir", str(tmp_path / "logs")]
    assert run(monkeypatch, verb, file, "--only", "a", "--only", "b*", *where) == conventions.EXIT_USAGE
    assert "--only: no such experiment: b*" in capsys.readouterr().err
    assert not (tmp_path / "logs").exists()


def test_a_known_job_that_is_over_is_no_typo(
    queued: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, "cancel", "near-1", "--save-dir", str(queued)) == 0
    assert capsys.readouterr().out.endswith("1 job cancelled\n")
    assert run(monkeypatch, "cancel", "near-*", "--state", "running", "--save-dir", str(queued)) == 0
    assert run(monkeypatch, "cancel", "near-1", "--save-dir", str(queued)) == 0
    assert capsys.readouterr().out == "0 jobs cancelled\n" * 2


def test_a_cluster_that_cannot_be_asked_does_not_keep_others_from_being_cancelled(
    queued: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, "cancel", "--all", "--save-dir", str(queued)) == conventions.EXIT_FAILED
    printed = capsys.readouterr()
    assert "cancelled near/near-1/train (local-" in printed.out
    assert "not cancelled: away/away-1/train: far: its scheduler cannot be reached" in printed.err


def test_the_paths_of_an_attempts_logs_are_only_its_own(
    queued: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    job = gather(queued).all_jobs[-1]
    for number in (1, 2):
        log = JobPaths(job.folder).attempt(number).log
        log.parent.mkdir()
        log.write_text(f"words of attempt {number}\n" * 10_000)
    name = [job.experiment, "--save-dir", str(queued)]
    assert run(monkeypatch, "logs", *name, "--attempt", "1", "--path") == 0
    assert capsys.readouterr().out == f"{JobPaths(job.folder).attempt(1).log}\n"
    assert run(monkeypatch, "logs", *name, "--path") == 0
    assert capsys.readouterr().out.splitlines() == [str(file) for file in log_files(job)]
    assert len(log_files(job)) == 2
    assert run(monkeypatch, "logs", *name) == 0
    assert capsys.readouterr().out == "words of attempt 2\n" * 10_000


def test_a_large_log_is_not_held_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = tmp_path / "output.log"
    log.write_text("step 1: loss 0.5\n" * 1_000_000)
    with Path(os.devnull).open("w", encoding="utf-8") as nowhere:
        monkeypatch.setattr(sys, "stdout", nowhere)
        tracemalloc.start()
        print_file(log, follow=False)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert peak < log.stat().st_size / 4


def test_max_jobs_counts_the_jobs_of_all_suites(tmp_path: Path) -> None:
    experiments = tuple(command(name) for name in "abcd")
    suites = [Suite(name=name, file=tmp_path / f"{name}.yaml", experiments=experiments) for name in ("first", "second")]
    destination = Destination(save_dir=tmp_path, scheduler=FakeScheduler())
    submit_in_turn(suites, destination, Options(), max_jobs=6)
    planned = Counter(job.suite for job in gather(tmp_path).jobs if job.state is JobState.PLANNED)
    assert planned == {"second": 2}


def test_verbs_look_where_the_profile_of_this_machine_puts_results(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    profile = ClusterProfile(save_dir=str(tmp_path / "bench"))
    monkeypatch.setattr("hpcbench.cluster.save_dir.load_profile", lambda: profile)
    assert usual_save_dir(None) == tmp_path / "bench"
    assert usual_save_dir(tmp_path) == tmp_path
    monkeypatch.setattr("hpcbench.cluster.save_dir.load_profile", lambda: None)
    assert usual_save_dir(None) == Path("logs").absolute()
