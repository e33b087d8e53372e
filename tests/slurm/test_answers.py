"""Slurm's commands that fail, hang, are late or talk too much: nothing is lost, nothing doubled, nothing concluded."""

from __future__ import annotations

import os
import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from hpcbench.scheduler.slurm import client
from hpcbench.scheduler.slurm import script as slurm_script
from hpcbench.scheduler.slurm.commands import run_command
from hpcbench.scheduler.slurm.scheduler import SlurmScheduler
from hpcbench.scheduler.slurm.states import SQUEUE_FORMAT, parse_squeue
from hpcbench.schemas.cluster_profile import ClusterProfile
from hpcbench.schemas.submission import read_submissions
from hpcbench.status.gather import gather
from hpcbench.storage.paths import SuitePaths
from hpcbench.submit import send_arrays as submit_batches
from tests.support.interrupted_trainings import shims
from tests.support.slurm_cluster.cluster import Cluster
from tests.support.slurm_suites import command_experiment, command_suite, hpcbench, states, submit, wait_until

pytestmark = pytest.mark.slurm

HELD = ClusterProfile(partition="held")
TWO = command_suite([command_experiment(name, ("true",), evals=["score"]) for name in ("a", "b")])
AWAY = "echo 'slurm_load_jobs error: Unable to contact slurm controller (connect failure)' >&2; exit 1"
TIMED_OUT = "echo 'sbatch: error: Batch job submission failed: Socket timed out on send/recv operation' >&2; exit 1"

Stand = Callable[..., None]


@pytest.fixture
def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Stand:
    """Put scripts in front of Slurm's commands; {real} is the command itself, waits are short."""
    monkeypatch.setattr(submit_batches, "WAITS_S", (0.1,) * 5)
    monkeypatch.setattr(client, "REPEAT_AFTER_S", 0.1)

    def put(**scripts: str) -> None:
        filled = {name: text.replace("{real}", f'"{shutil.which(name)}" "$@"') for name, text in scripts.items()}
        with shims(tmp_path, **filled) as folder:
            monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")

    return put


def first(count: int, then_fail: str) -> str:
    """Return a script that does something else on its first calls."""
    return f'echo >> "$0.calls"; [ $(wc -l < "$0.calls") -le {count} ] && {{ {then_fail}; }}; exec {{real}}'


def check_once(save_dir: Path) -> None:
    """Check that each of the four jobs is in the queue once, under the id that was written down."""
    known = read_submissions(SuitePaths(save_dir, "commands"))
    assert [s.state for s in known] == ["submitted"] * 2
    names = f"--name={','.join(s.key for s in known)}"
    text = run_command(["squeue", "--states=PENDING", names, "-h", "-r", f"--format={SQUEUE_FORMAT}"])
    keys = {s.key for s in known}
    queued = sorted((row.name, row.job_id, row.index) for row in parse_squeue(text) if row.name in keys)
    assert queued == sorted((s.key, s.scheduler_id, index) for s in known for index in s.elements)


@pytest.mark.parametrize(
    ("sbatch", "squeue"),
    [
        (first(1, TIMED_OUT), "exec {real}"),
        (first(2, TIMED_OUT), first(3, AWAY)),
        (first(1, "{real} > /dev/null; " + TIMED_OUT), first(3, AWAY)),
        (first(1, "exec sleep 60"), "exec {real}"),
        (first(1, "{real} > /dev/null; sleep 60"), "exec {real}"),
        (first(1, "{real} > /dev/null; kill -9 $$"), "exec {real}"),
    ],
    ids=["fails once", "both fail", "lies and squeue fails", "hangs", "hangs after success", "killed after success"],
)
@pytest.mark.usefixtures("held")
def test_a_submit_outlives_what_passes(
    stand_in: Stand, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sbatch: str, squeue: str
) -> None:
    monkeypatch.setattr(slurm_script, "SBATCH_TIMEOUT_S", 1)
    stand_in(sbatch=sbatch, squeue=squeue)
    outcome = submit(TWO, tmp_path / "logs", profile=HELD)
    assert (outcome.num_jobs, outcome.refused) == (4, [])
    check_once(tmp_path / "logs")
    assert submit(TWO, tmp_path / "logs", profile=HELD).num_jobs == 0


def test_slurmctld_may_restart_during_a_submit(slurm_cluster: Cluster, stand_in: Stand, tmp_path: Path) -> None:
    # The first sbatch waits until slurmctld is away. No partition of a test outlives that.
    stand_in(sbatch='touch "$0.called"; while [ ! -e "$0.go" ]; do sleep 0.05; done; exec {real}')
    shim = tmp_path / "shims" / "sbatch"

    def let_go(file: Path) -> None:
        file.touch()
        time.sleep(2)

    def restart() -> None:
        wait_until(Path(f"{shim}.called").exists, what="sbatch is called")
        slurm_cluster.restart_slurmctld(lambda: let_go(Path(f"{shim}.go")))

    thread = threading.Thread(target=restart)
    thread.start()
    outcome = submit(TWO, tmp_path / "logs", profile=ClusterProfile(extra_sbatch={"hold": True}))
    thread.join()
    assert (outcome.num_jobs, outcome.refused) == (4, [])
    check_once(tmp_path / "logs")
    run_command(["scancel", *(str(submission.scheduler_id) for submission in outcome.submitted)])


def test_banners_are_no_answer(held: None, stand_in: Stand, tmp_path: Path) -> None:
    banner = "printf '*** Welcome ***\n\n1|2|3|news|of|the|day|x\n100 nodes are down\n'; exec {real}"
    stand_in(sbatch=banner, squeue=banner, sacct=banner)
    profile = HELD.model_copy(update={"max_submitted": 4})
    wait_until(lambda: SlurmScheduler(profile, tmp_path).room_left() == 4, what="an empty queue")
    assert submit(TWO, tmp_path / "logs", profile=profile).num_jobs == 4
    check_once(tmp_path / "logs")
    assert SlurmScheduler(profile, tmp_path).room_left() == 0
    assert set(states(gather(tmp_path / "logs"), "train").values()) == {"pending"}
    hpcbench("cancel", "--all", "--save-dir", str(tmp_path / "logs"))
    assert set(states(gather(tmp_path / "logs"), "train").values()) == {"cancelled"}


def test_an_accounting_that_is_late_or_empty_loses_nothing(held: None, stand_in: Stand, tmp_path: Path) -> None:
    trains, evals = submit(TWO, tmp_path / "logs", profile=HELD).submitted

    def told(word: str) -> bool:
        ids = f"{trains.scheduler_id},{evals.scheduler_id}"
        rows = run_command(["sacct", "-nXP", "-j", ids, "--format=JobName,State"]).splitlines()
        return sum(row.startswith(("commands-train", "commands-eval")) and word in row for row in rows) >= 2

    # What is cancelled before accounting has heard of it never gets its name there.
    wait_until(lambda: told(""), what="accounting knows them")
    run_command(["scancel", "--partition=held"])
    wait_until(lambda: told("CANCELLED"), what="accounting knows their end")
    # As after MinJobAge, while accounting has not heard of it yet.
    stand_in(squeue="exit 0", sacct=first(2, "exit 0"))
    assert set(states(gather(tmp_path / "logs"), "train").values()) == {"unknown"}
    assert submit(TWO, tmp_path / "logs", profile=HELD).num_jobs == 0
    assert set(states(gather(tmp_path / "logs"), "train").values()) == {"cancelled"}
