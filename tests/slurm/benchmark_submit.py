"""How long a thousand experiments take to submit, look at and cancel: hpcbench, a shell loop of sbatch, a submitit loop.

    source .slurm/env && python -m tests.slurm.benchmark_submit [hpcbench|sbatch|submitit ...]

In: a Slurm whose queue is free for a minute, and which tools to measure, all by default. Out: a Markdown table; calls
of all kinds are counted by slurmctld itself (sdiag). All jobs wait on hold or behind a long one and are cancelled at the
end. A benchmark, not a test: it asserts nothing.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import submitit
from tabulate import tabulate

from hpcbench.cancel import cancel_jobs
from hpcbench.scheduler.slurm import run_command
from hpcbench.status import gather
from tests.slurm.suites import command_experiment, command_suite, count_client_rpcs, submit

EXPERIMENTS = 1000
EVALS = ("first", "second")
SUBMITIT_JOBS = 300


def main(names: Sequence[str]) -> None:
    """Run the tools one after the other and print the table."""
    tools = {"hpcbench": measure_hpcbench, "sbatch": measure_shell, "submitit": measure_submitit}
    rows = [row for name in names or tools for row in tools[name]()]
    print(tabulate(rows, headers=["tool", "jobs", "what", "seconds", "calls of slurmctld"], tablefmt="github"))


def timed(what: str, tool: str, jobs: int, action: Callable[[], object]) -> list[object]:
    """Run an action; return a row of the table."""
    before = count_client_rpcs()
    started = time.perf_counter()
    action()
    seconds = time.perf_counter() - started
    asked = count_client_rpcs() - before
    calls = ", ".join(f"{count} {kind.removeprefix('REQUEST_')}" for kind, count in sorted(asked.items()))
    return [tool, jobs, what, f"{seconds:.1f}", calls or "0"]


def measure_hpcbench() -> list[list[object]]:
    """Submit, look at and cancel a suite of a thousand experiments with two evals each."""
    jobs = EXPERIMENTS * (1 + len(EVALS))
    with tempfile.TemporaryDirectory(dir=Path.cwd() / "logs") as folder:
        root = Path(folder)
        suite = command_suite(
            [command_experiment(f"e{i:04}", ("sleep", "600"), evals=EVALS) for i in range(EXPERIMENTS)]
        )
        rows = [
            timed("submit", "hpcbench", jobs, lambda: submit(suite, root)),
            timed("submit again: nothing to do", "hpcbench", jobs, lambda: submit(suite, root)),
            timed("status", "hpcbench", jobs, lambda: gather(root)),
            timed("cancel all", "hpcbench", jobs, lambda: cancel_jobs(gather(root, settle=False).jobs, root)),
        ]
        wait_for_empty_queue()
    return rows


def measure_shell() -> list[list[object]]:
    """Do the same with one sbatch a job and afterok, as a person would by hand."""
    jobs = EXPERIMENTS * (1 + len(EVALS))
    script = (
        f"for i in $(seq {EXPERIMENTS}); do "
        "id=$(sbatch --parsable --hold -o /dev/null --mem=100M --wrap 'sleep 600'); "
        "for e in 1 2; do sbatch --parsable -o /dev/null --mem=100M -d afterok:$id --wrap true >/dev/null; done; done"
    )
    rows = [
        timed("submit", "sbatch loop", jobs, lambda: subprocess.run(["bash", "-c", script], check=True)),
        timed("status", "sbatch loop", jobs, lambda: run_command(["squeue", "--me", "-h"])),
        timed("cancel all", "sbatch loop", jobs, lambda: run_command(["scancel", "--me"])),
    ]
    wait_for_empty_queue()
    return rows


def measure_submitit() -> list[list[object]]:
    """Submit with submitit's own submit, one call a job; fewer jobs, since each takes a tenth of a second."""
    with tempfile.TemporaryDirectory(dir=Path.cwd() / "logs") as folder:
        executor = submitit.SlurmExecutor(folder=folder)
        executor.update_parameters(time=10, mem="100M", additional_parameters={"hold": True})

        def submit_all() -> None:
            for _ in range(SUBMITIT_JOBS):
                executor.submit(time.sleep, 600)

        rows = [timed("submit", "submitit loop", SUBMITIT_JOBS, submit_all)]
        run_command(["scancel", "--me"])
        wait_for_empty_queue()
    return rows


def wait_for_empty_queue() -> None:
    """Wait until no job is left, so that the next tool starts as this one did."""
    while run_command(["squeue", "--me", "-h"]).strip():
        time.sleep(1)


if __name__ == "__main__":
    main(sys.argv[1:])
