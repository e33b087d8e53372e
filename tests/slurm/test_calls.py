"""How much hpcbench asks of slurmctld, counted by slurmctld itself (sdiag), all kinds of messages."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from hpcbench.scheduler.slurm.client import SlurmClient
from hpcbench.scheduler.slurm.commands import run_command
from hpcbench.schemas.cluster_profile import ClusterProfile
from tests.support.slurm_suites import command_experiment, command_suite, count_client_rpcs, hpcbench, submit

pytestmark = pytest.mark.slurm

HELD = ClusterProfile(partition="held")


def test_a_thousand_experiments_with_two_evals_cost_slurm_a_handful_of_messages(held: None, tmp_path: Path) -> None:
    place = ("--save-dir", str(tmp_path))
    many = [command_experiment(f"e{i:04}", ("true",), evals=("first", "second")) for i in range(1000)]
    before = count_client_rpcs()
    outcome = submit(command_suite(many), tmp_path, profile=HELD)
    asked = count_client_rpcs() - before
    print("submit", dict(asked))
    assert (outcome.num_jobs, outcome.refused) == (3000, [])
    assert asked["REQUEST_SUBMIT_BATCH_JOB"] == 3

    # Another profile of the same Slurm is the same queue.
    few = command_suite([command_experiment("one", ("true",), suite="few")])
    submit(few, tmp_path, profile=HELD.model_copy(update={"name": "another"}))
    before = count_client_rpcs()
    shown = json.loads(hpcbench("status", "--json", *place).stdout)
    asked = count_client_rpcs() - before
    print("status", dict(asked))
    assert {(job["suite"], job["state"]) for job in shown["jobs"]} == {("commands", "pending"), ("few", "pending")}
    assert (len(shown["jobs"]), shown["warnings"]) == (3001, [])
    assert 1 <= asked.total() <= 2

    before = count_client_rpcs()
    assert "3001 jobs cancelled" in hpcbench("cancel", "--all", *place).stdout
    asked = count_client_rpcs() - before
    print("cancel", dict(asked))
    assert asked["REQUEST_KILL_JOB"] == 4
    assert asked.total() <= 6

    # All are gone, and what is left is asked for in the queue and in accounting.
    before = count_client_rpcs()
    shown = json.loads(hpcbench("status", "--json", *place).stdout)
    asked = count_client_rpcs() - before
    print("status", dict(asked))
    assert {job["state"] for job in shown["jobs"]} <= {"cancelled", "blocked"}
    assert asked.total() <= 2


def test_evals_are_released_with_one_message_though_some_have_started(held: None) -> None:
    options = ["--parsable", "--output=/dev/null", "--mem=10M", "--array=0-9", "--wrap=true"]
    train = run_command(["sbatch", "--hold", *options]).strip()
    try:
        waits = [f"--dependency=aftercorr:{train}", "--kill-on-invalid-dep=no", "--partition=held"]
        evals = run_command(["sbatch", *waits, *options]).strip()
        before = count_client_rpcs()
        SlurmClient().release([f"{evals}_{index}" for index in (0, 1, 5)])
        assert count_client_rpcs() - before == {"REQUEST_UPDATE_JOB": 1}
        run_command(["scancel", f"{evals}_5"])
        SlurmClient().release([f"{evals}_{index}" for index in (5, 6)])
        waiting = run_command(["squeue", "-r", "--noheader", f"--job={evals}", "--format=%K %E"]).splitlines()
        assert {line.split()[0] for line in waiting if line.endswith("(null)")} == {"0", "1", "6"}
    finally:
        run_command(["scancel", "--me"])
