"""Submits that are killed, doubled or lied to: every planned job is with Slurm exactly once all the same."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from hpcbench.scheduler.slurm.commands import run_command
from hpcbench.scheduler.slurm.states import SQUEUE_FORMAT, parse_squeue
from hpcbench.schemas.cluster_profile import ClusterProfile
from hpcbench.schemas.states import JobState
from hpcbench.schemas.submission import read_submissions
from hpcbench.schemas.suite import Suite
from hpcbench.storage.paths import SuitePaths
from tests.support.interrupted_trainings import shims
from tests.support.slurm_cluster.cluster import Cluster
from tests.support.slurm_suites import (
    SCORE,
    command_experiment,
    command_suite,
    hpcbench,
    states,
    submit,
    wait_until,
    wait_until_over,
    write_suite,
)

pytestmark = pytest.mark.slurm

PLANNED_JOBS = ("train", "eval-score")


def names_in_queue() -> set[str]:
    """Return the names of all jobs of that partition that Slurm remembers."""
    rows = run_command(["squeue", "--states=all", "--noheader", "--format=%P %j"]).splitlines()
    return {row.split()[1] for row in rows if row.split()[0] == "held"}


@dataclass(slots=True)
class Held:
    """A partition that takes jobs and starts none until it is told to, so that hundreds of them cost nothing."""

    profile: ClusterProfile
    keys: set[str] = field(default_factory=set)
    """Of all submissions that have been seen in files: a job of another name was never written down."""

    def clear(self) -> None:
        """Cancel all that is in it."""
        run_command(["scancel", "--partition=held"])

    @contextmanager
    def open(self) -> Iterator[None]:
        """Let its jobs run."""
        run_command(["scontrol", "update", "PartitionName=held", "State=UP"])
        yield
        run_command(["scontrol", "update", "PartitionName=held", "State=DOWN"])


@pytest.fixture
def held(slurm_cluster: Cluster) -> Iterator[Held]:
    """Make that partition."""
    run_command(["scontrol", "create", "PartitionName=held", "Nodes=gpu[1-2]", "State=DOWN"])
    # Those that an earlier test left behind are over, and remembered for a while.
    found = Held(profile=ClusterProfile(partition="held"), keys=names_in_queue())
    yield found
    found.clear()
    wait_until(lambda: not run_command(["squeue", "--noheader", "--partition=held"]), what="held is empty")
    run_command(["scontrol", "delete", "PartitionName=held"])


def many(count: int) -> Suite:
    return command_suite([command_experiment(f"e{i:02}", ("true",), evals=["score"]) for i in range(count)])


def names_of(suite: Suite) -> list[str]:
    return [experiment.name for experiment in suite.experiments]


def fork_submit(suite: Suite, save_dir: Path, profile: ClusterProfile) -> int:
    """Submit in a child process, which starts at once for it has all modules; return its id."""
    pid = os.fork()
    if pid:
        return pid
    try:
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, 1)
        os.dup2(null, 2)
        submit(suite, save_dir, profile=profile)
        os._exit(0)
    finally:
        os._exit(1)


def count_jobs(save_dir: Path, held: Held) -> Counter[tuple[str, str]]:
    """Return how many Slurm jobs there are, live or ended, for each job of the suite, whatever its files say of them."""
    submissions = {s.key: s for s in read_submissions(SuitePaths(save_dir, "commands"))}
    held.keys |= submissions.keys()
    assert names_in_queue() <= held.keys, "jobs without an intent"
    rows = parse_squeue(run_command(["squeue", "--states=all", "--noheader", "-r", f"--format={SQUEUE_FORMAT}"]))
    found: Counter[tuple[str, str]] = Counter()
    for row in rows:
        submission = submissions.get(row.name)
        if submission is not None:
            element = submission.elements[row.index or 0]
            found[element.experiment, element.job] += 1
    return found


def check_once_each(names: Sequence[str], save_dir: Path, held: Held, what: str) -> None:
    """Check that nothing is lost and nothing doubled, in Slurm and in our own files."""
    planned = {(name, job) for name in names for job in PLANNED_JOBS}
    found = count_jobs(save_dir, held)
    lost, doubled = planned - found.keys(), {job for job, count in found.items() if count > 1}
    assert (lost, doubled) == (set(), set()), what
    known = [s for s in read_submissions(SuitePaths(save_dir, "commands")) if s.state == "submitted"]
    assert Counter((e.experiment, e.job) for s in known for e in s.elements.values()) == Counter(planned), what


def check_ran_once_each(save_dir: Path, num_jobs: int) -> None:
    """Wait for all jobs of a suite, and check that each was started exactly once: start marks, attempts, records."""
    collection = wait_until_over(save_dir)
    assert Counter(job.state for job in collection.jobs) == {JobState.COMPLETED: num_jobs}
    marks = [file.read_text().splitlines() for file in save_dir.glob("commands/submissions/*.started/*")]
    assert [len(lines) for lines in marks] == [1] * num_jobs
    assert [path.name for path in save_dir.glob("commands/*/*/attempt-*")] == ["attempt-1"] * num_jobs
    records = [job.record for job in collection.jobs]
    assert [None if record is None else len(record.attempts) for record in records] == [1] * num_jobs


def kill_and_submit_again(folder: Path, held: Held, *, kills: int, experiments: int, run_every: int) -> dict[str, int]:
    """Kill submits at moments spread evenly over their duration; return in what state each left its intents.

    Args:
        folder: for their save directories.
        held: where the jobs wait.
        kills: how many submits.
        experiments: of each.
        run_every: how often the jobs of a killed submit run to their end; 0 for never.
    """
    suite = many(experiments)
    whole_s = 60.0
    for name in ("cold", "warm"):
        started = time.monotonic()
        os.waitpid(fork_submit(suite, folder / name, held.profile), 0)
        whole_s = min(whole_s, time.monotonic() - started)
        count_jobs(folder / name, held)
    held.clear()
    left: Counter[str] = Counter()
    for number in range(kills):
        save_dir = folder / f"killed-{number}"
        pid = fork_submit(suite, save_dir, held.profile)
        delay_s = whole_s * 1.1 * number / kills
        time.sleep(delay_s)
        os.kill(pid, signal.SIGKILL)
        _, status = os.waitpid(pid, 0)
        submissions = read_submissions(SuitePaths(save_dir, "commands"))
        left["whole" if not os.WIFSIGNALED(status) else "+".join(s.state for s in submissions) or "none"] += 1
        submit(suite, save_dir, profile=held.profile)
        check_once_each(names_of(suite), save_dir, held, f"killed after {delay_s:.3f} of {whole_s:.3f} s")
        if run_every and number % run_every == run_every // 2:
            with held.open():
                check_ran_once_each(save_dir, 2 * experiments)
            left["ran"] += 1
        held.clear()
    return dict(left)


def test_a_submit_killed_at_any_moment_loses_and_doubles_nothing(held: Held, tmp_path: Path) -> None:
    left = kill_and_submit_again(tmp_path, held, kills=24, experiments=20, run_every=0)
    print(left)
    assert len(left) > 2, left


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_two_hundred_killed_submits_lose_and_double_nothing(held: Held, tmp_path: Path) -> None:
    left = kill_and_submit_again(tmp_path, held, kills=200, experiments=50, run_every=20)
    print(left)
    assert left["ran"] == 10
    assert len(left) > 3, left


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_a_command_line_killed_at_any_moment_loses_and_doubles_nothing(held: Held, tmp_path: Path) -> None:
    profile = write_suite(tmp_path / "held.yaml", {"partition": "held"})
    names = [f"e{i:02}" for i in range(50)]
    suite = {
        "cmd": "command",
        "device": "cpu",
        "requirements": {"gpu": 0, "cpus": 1, "mem_gb": 0.1, "time": "10m"},
        "args": {"command": ["true"]},
        "eval_dataset": ["score"],
        "eval_args": {"command": list(SCORE)},
        "experiment": [{"name": name} for name in names],
    }
    arguments = ["submit", str(write_suite(tmp_path / "commands.yaml", suite)), "--cluster", str(profile)]
    started = time.monotonic()
    hpcbench(*arguments, "--save-dir", str(tmp_path / "whole"))
    whole_s = time.monotonic() - started
    start_s = min(0.3, whole_s / 2)
    count_jobs(tmp_path / "whole", held)
    held.clear()
    left: Counter[str] = Counter()
    for number in range(40):
        save_dir = tmp_path / f"killed-{number}"
        words = [sys.executable, "-m", "hpcbench", *arguments, "--save-dir", str(save_dir)]
        process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        # Before start_s Python itself is starting.
        delay_s = start_s + (whole_s - start_s) * number / 40
        time.sleep(delay_s)
        process.kill()
        was_killed = process.wait() == -signal.SIGKILL
        submissions = read_submissions(SuitePaths(save_dir, "commands"))
        left["+".join(s.state for s in submissions) or "none" if was_killed else "whole"] += 1
        hpcbench(*arguments, "--save-dir", str(save_dir))
        check_once_each(names, save_dir, held, f"killed after {delay_s:.3f} of {whole_s:.3f} s")
        if number == 20:
            with held.open():
                check_ran_once_each(save_dir, 2 * len(names))
        held.clear()
    print(dict(left))
    assert len(left) > 2, left


def submit_in_pairs(folder: Path, held: Held, *, pairs: int, run_every: int) -> None:
    suite = many(10)
    for number in range(pairs):
        save_dir = folder / f"pair-{number}"
        children = [fork_submit(suite, save_dir, held.profile) for _ in range(2)]
        assert [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in children] == [0, 0]
        check_once_each(names_of(suite), save_dir, held, f"pair {number}")
        if run_every and number % run_every == 0:
            with held.open():
                check_ran_once_each(save_dir, 20)
        held.clear()


def test_pairs_of_submits_at_once_double_nothing(held: Held, tmp_path: Path) -> None:
    submit_in_pairs(tmp_path, held, pairs=10, run_every=0)


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_twenty_pairs_of_submits_at_once_double_nothing(held: Held, tmp_path: Path) -> None:
    submit_in_pairs(tmp_path, held, pairs=20, run_every=5)


def test_killed_and_paired_submits_start_each_job_once(held: Held, tmp_path: Path) -> None:
    suite = many(5)
    pid = fork_submit(suite, tmp_path, held.profile)
    while not list(tmp_path.glob("commands/submissions/*.json")):
        time.sleep(0.002)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    with held.open():
        for child in [fork_submit(suite, tmp_path, held.profile) for _ in range(2)]:
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        check_ran_once_each(tmp_path, 10)
    check_once_each(names_of(suite), tmp_path, held, "killed and paired")


def test_an_sbatch_that_times_out_after_it_submitted_doubles_nothing(
    held: Held, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = run_command(["sh", "-c", "command -v sbatch"]).strip()
    lies = f'"{real}" "$@" > /dev/null; echo "sbatch: error: Batch job submission failed: Socket timed out on send/recv operation" >&2; exit 1'
    suite = many(5)
    with shims(tmp_path, sbatch=lies) as folder, monkeypatch.context() as patch:
        patch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
        outcome = submit(suite, tmp_path / "logs", profile=held.profile)
    assert outcome.num_jobs == 10
    assert outcome.refused == []
    check_once_each(names_of(suite), tmp_path / "logs", held, "sbatch timed out")
    with held.open():
        check_ran_once_each(tmp_path / "logs", 10)


def test_a_queue_that_does_not_answer_stops_the_submit(
    held: Held, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    suite = many(3)
    save_dir = tmp_path / "logs"
    submit(suite, save_dir, profile=held.profile)
    file = write_suite(
        tmp_path / "other.yaml",
        {"cmd": "command", "device": "cpu", "args": {"command": ["sleep", "300"]}, "experiment": [{"name": "one"}]},
    )
    hpcbench("submit", str(file), "--save-dir", str(save_dir))
    before = run_command(["squeue", "--noheader", "-r"])
    with (
        shims(
            tmp_path, squeue="echo 'slurm_load_jobs error: Unable to contact slurm controller' >&2; exit 1"
        ) as folder,
        monkeypatch.context() as patch,
    ):
        patch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
        refused = hpcbench("submit", str(file), "--save-dir", str(save_dir), check=False)
        shown = hpcbench("status", "--json", "--save-dir", str(save_dir))
    assert refused.returncode == 1
    assert "nothing was submitted" in refused.stderr
    assert "unknown" in shown.stdout
    assert len(run_command(["squeue", "--noheader", "-r"]).splitlines()) == len(before.splitlines())
    check_once_each(names_of(suite), save_dir, held, "squeue failed")
    assert "0 jobs submitted" in hpcbench("submit", str(file), "--save-dir", str(save_dir)).stdout
    hpcbench("cancel", "other", "--save-dir", str(save_dir))


def sleeper_and_other() -> Suite:
    return command_suite(
        [
            command_experiment("a", ("sleep", "8"), evals=["score"]),
            command_experiment("b", ("true",), evals=["score"]),
        ]
    )


def check_all_ran_once(save_dir: Path) -> None:
    collection = wait_until_over(save_dir)
    assert states(collection, "train") == {"a": "completed", "b": "completed"}
    assert states(collection, "eval-score") == {"a": "completed", "b": "completed"}
    assert [path.name for path in save_dir.glob("commands/*/*/attempt-*")] == ["attempt-1"] * 4


def test_slurmctld_may_restart_while_jobs_run(slurm_cluster: Cluster, tmp_path: Path) -> None:
    submit(sleeper_and_other(), tmp_path)
    slurm_cluster.restart_slurmctld()
    assert submit(sleeper_and_other(), tmp_path).num_jobs == 0
    check_all_ran_once(tmp_path)


@pytest.mark.long
def test_slurmdbd_may_be_away_while_slurmctld_restarts(slurm_cluster: Cluster, tmp_path: Path) -> None:
    submit(sleeper_and_other(), tmp_path)
    slurm_cluster.stop_slurmdbd()
    try:
        slurm_cluster.restart_slurmctld()
        assert submit(sleeper_and_other(), tmp_path).num_jobs == 0
        check_all_ran_once(tmp_path)
    finally:
        slurm_cluster.start_slurmdbd()


def test_sbatch_export_none_changes_nothing(
    slurm_cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    suite = command_suite([command_experiment("a", ("true",), evals=["score"])])
    monkeypatch.setenv("SBATCH_EXPORT", "NONE")
    # What the user's shell would have given is what a profile's setup lines give.
    profile = ClusterProfile(env={name: os.environ[name] for name in ("PATH", "PYTHONPATH") if name in os.environ})
    submit(suite, tmp_path, profile=profile)
    assert {job.state for job in wait_until_over(tmp_path).jobs} == {JobState.COMPLETED}
