"""Every way to die that hpcbench knows: the state, the row of the report and the words of `why` that each gives."""

from __future__ import annotations

import re
from contextlib import ExitStack
from pathlib import Path

import pytest

from hpcbench.report import render
from hpcbench.scheduler.slurm.commands import run_command
from hpcbench.schemas.collection import Collection
from tests.conftest import Golden
from tests.support.failure_causes import (
    KEPT,
    SETUPS,
    Death,
    enlarge_disk,
    list_deaths,
    normalise,
    shell,
    small_disk,
    suite_of,
    write_profiles,
)
from tests.support.interrupted_trainings import assert_no_orphans, job_of, scheduler_id
from tests.support.slurm_cluster.cluster import Cluster
from tests.support.slurm_cluster.config import MEMORY_PER_NODE_MIB
from tests.support.slurm_suites import hpcbench, view, wait_until, wait_until_over, write_suite

pytestmark = [pytest.mark.slurm, pytest.mark.train]

FRAME = re.compile(r" {6}(  |File .*, in )")
"""A line of a Python traceback; what it shows differs from version to version."""

DOCUMENT_HEAD = """\
# How jobs die, and what hpcbench says of it

Made by `tests/slurm/test_causes.py` on a real Slurm; ids, times and places are left out. Each job below was submitted
once and died once. The row is the beginning of its line in the report of `hpcbench collect`, the text that of
`hpcbench why`, without the lines of srun and the frames of tracebacks.
"""


def test_every_cause_has_its_state_its_row_and_its_words(
    slurm_cluster: Cluster, tmp_path: Path, golden: Golden
) -> None:
    save_dir = tmp_path / "logs"
    deaths = list_deaths(tmp_path)
    write_profiles(tmp_path)
    with ExitStack() as stack:
        # Slurm counts memory itself here, every 5 s, for want of cgroups.
        stack.callback(run_command, ["scontrol", "reconfigure"])
        stack.enter_context(slurm_cluster.changed("JobAcctGatherParams=OverMemoryKill", KEPT))
        run_command(["scontrol", "reconfigure"])
        stack.enter_context(small_disk(save_dir / "causes" / "disk-full", size_kib=640))
        stack.enter_context(small_disk(save_dir / "causes" / "disk-full-record", size_kib=48))
        suite = write_suite(tmp_path / "causes.yaml", suite_of(deaths))
        hpcbench("submit", str(suite), "--save-dir", str(save_dir), cwd=tmp_path)
        for name in SETUPS:
            one = write_suite(
                tmp_path / f"{name}.yaml",
                {"cmd": "command", "device": "cpu", "args": {"command": ["true"]}, "experiment": [{"name": name}]},
            )
            hpcbench("submit", str(one), "--cluster", name, "--save-dir", str(save_dir), cwd=tmp_path)
        interrupt(slurm_cluster, save_dir, tmp_path)
        collection = wait_until_over(save_dir)
        told = hpcbench("why", "--all", "--save-dir", str(save_dir), cwd=tmp_path).stdout
        golden("failure_causes.md", document((*deaths, *SETUPS.values()), collection, told, tmp_path))

        enlarge_disk(save_dir / "causes" / "disk-full-record", size_kib=8192)
        hpcbench("retry", "disk-full-record", "--save-dir", str(save_dir), cwd=tmp_path)
        done = view(wait_until_over(save_dir), "disk-full-record", "train")
        assert done.state == "completed", done.reason


@pytest.mark.long
def test_a_time_limit_that_its_supervisor_did_not_survive_is_still_one(slurm_cluster: Cluster, tmp_path: Path) -> None:
    suite = {"cmd": "command", "device": "cpu", "requirements": {"gpu": 0, "mem_gb": 0.1, "time": "10m"}}
    # Its supervisor waits for it longer than Slurm does between TERM and KILL (KillWait, 5 s here).
    stays = shell("trap '' TERM; echo working; exec sleep 600")
    file = write_suite(tmp_path / "limit.yaml", {**suite, "experiment": [{"name": "stays", **stays}]})
    save_dir = tmp_path / "logs"
    hpcbench("submit", str(file), "--save-dir", str(save_dir))
    job = job_of(save_dir, "stays", "limit")
    wait_until(job.attempt(1).log.exists, what="the job runs")
    run_command(["scontrol", "update", f"JobId={scheduler_id(save_dir, 'stays', 'limit')}", "TimeLimit=1"])
    found = view(wait_until_over(save_dir), "stays", "train")
    assert not job.record.exists()
    assert (found.state, found.reason) == ("timeout", "the time limit was reached (TIMEOUT); it left no record")
    assert_no_orphans(save_dir)
    told = hpcbench("why", "--save-dir", str(save_dir)).stdout
    assert told.startswith("limit/stays/train: timeout (the time limit was reached)\n")
    assert "hpcbench retry limit/stays --adjust" in told


def interrupt(cluster: Cluster, save_dir: Path, folder: Path) -> None:
    """Kill from outside what waits for it, the node last of all."""
    names = ("cancel", "scancel", "time-limit", "attempts", "preempted", "node-lost")
    ids = {name: scheduler_id(save_dir, name, suite="causes") for name in names}
    waiting = [job_of(save_dir, name, "causes").attempt(1).log for name in names]
    wait_until(lambda: all(log.exists() and log.stat().st_size > 0 for log in waiting), what="six jobs wait")
    for name in ("preempted", "node-lost"):
        run_command(["scontrol", "update", f"JobId={ids[name]}", "Requeue=0"])
    hpcbench("cancel", "cancel", "--save-dir", str(save_dir), cwd=folder)
    run_command(["scancel", ids["scancel"]])
    for name in ("time-limit", "attempts"):
        run_command(["scancel", "--signal=USR2", ids[name]])
    wait_until(lambda: set(live_ids()) == {ids["preempted"], ids["node-lost"]}, what="others are over")
    displace(ids["preempted"])
    wait_until(lambda: live_ids() == [ids["node-lost"]], what="all others are over")
    node = node_of(ids["node-lost"])
    try:
        cluster.lose_node(node)
    finally:
        cluster.start_slurmd(node)


def displace(element_id: str) -> None:
    """Let a job of the partition `high` ask for all the memory of a job's node but what the kept jobs there have."""
    free = MEMORY_PER_NODE_MIB - 600
    command = ["sbatch", "--partition=high", f"--nodelist={node_of(element_id)}", f"--mem={free}M"]
    run_command([*command, "--output=/dev/null", "--wrap=true"])


def node_of(element_id: str) -> str:
    """Return the node that a job runs on."""
    return run_command(["squeue", "--noheader", "--format=%N", f"--job={element_id}"]).strip()


def live_ids() -> list[str]:
    """Return the ids of the jobs that are not over."""
    return run_command(["squeue", "--noheader", "-r", "--format=%i"]).split()


def document(deaths: tuple[Death, ...], collection: Collection, told: str, folder: Path) -> str:
    """Return the matrix as Markdown."""
    # The first line of a name is that of its results; its costs follow.
    lines = [line for line in render(collection, format="markdown").splitlines() if "|" in line]
    rows = {line.split("|")[1].strip(): line for line in reversed(lines)}
    words = {text.split(":", 1)[0].split("/")[1]: text for text in split_words(told)}
    parts = [DOCUMENT_HEAD]
    for death in deaths:
        state = view(collection, death.name, "train").state
        exp_name, cell = (text.strip() for text in rows[death.name].split("|")[1:3])
        parts.append(
            f"## {death.name}: {death.how}\n\n"
            f"State: `{state}`\n\n"
            f"| exp_name | state |\n|:---|:---|\n| {exp_name} | {normalise(cell, folder)} |\n\n"
            f"```text\n{tidy(normalise(words[death.name], folder))}\n```\n"
        )
    return "\n".join(parts)


def tidy(words: str) -> str:
    """Leave out srun's lines and the frames of tracebacks, and sort slurmstepd's lines: they come when they like.

    Slurm's daemons write into one file at once, so that the note of a step's end may be cut short; it is left out.
    """
    lines = [re.sub(r"srun: .*", "", line).rstrip() for line in words.splitlines()]
    lines = [line for line in lines if line and not FRAME.match(line) and "*** STEP" not in line]
    steps = sorted({line for line in lines if line.startswith("    slurmstepd")})
    first = next((number for number, line in enumerate(lines) if line in steps), 0)
    return "\n".join([*lines[:first], *steps, *(line for line in lines[first:] if line not in steps)])


def split_words(told: str) -> list[str]:
    """Return what `why` said of each job."""
    texts: list[str] = []
    for line in told.splitlines():
        if line.startswith(" "):
            texts[-1] += f"\n{line}"
        else:
            texts.append(line)
    return texts
