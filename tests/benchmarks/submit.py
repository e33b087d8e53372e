"""How long a thousand experiments take to submit, look at and cancel: hpcbench, a shell loop of sbatch, a submitit loop.

    source .slurm/env && python -m tests.benchmarks.submit [hpcbench|sbatch|submitit ...]

In: a Slurm whose queue is free for some minutes, and which tools to measure, all by default. Out: a Markdown table; whole
commands are timed, start of the interpreter included, and all messages that slurmctld served are counted by itself
(sdiag). All jobs are held, so nothing runs beside. A benchmark, not a test: it asserts nothing.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from tabulate import tabulate

from hpcbench.scheduler.slurm.commands import run_command
from tests.support.slurm_suites import SCORE, count_client_rpcs

EXPERIMENTS = 1000
EVALS = ("first", "second")
SUBMITIT_EXPERIMENTS = 100
"""Each of its calls waits for a tenth of a second and more."""
HPCBENCH = (sys.executable, "-m", "hpcbench")
SBATCH_LOOP = (
    f"for i in $(seq {EXPERIMENTS}); do "
    "id=$(sbatch --parsable --hold -o /dev/null --mem=100M --wrap 'sleep 600'); "
    "for e in 1 2; do sbatch --parsable --hold -o /dev/null --mem=100M -d afterok:$id --wrap true >/dev/null; done; "
    "done"
)


def main(names: Sequence[str]) -> None:
    """Run the tools one after the other and print the table."""
    tools = {"hpcbench": measure_hpcbench, "sbatch": measure_shell, "submitit": measure_submitit}
    rows = []
    with tempfile.TemporaryDirectory(dir=Path.cwd() / "logs") as folder:
        for name in names or tools:
            rows += tools[name](Path(folder))
            wait_for_empty_queue()
    headers = ["tool", "jobs", "what", "seconds", "messages to slurmctld"]
    sides = ("left", "right", "left", "right", "left")
    print(tabulate(rows, headers=headers, tablefmt="github", disable_numparse=True, colalign=sides))


def timed(what: str, tool: str, jobs: int, *command: str) -> list[object]:
    """Run a command; return a row of the table."""
    before = count_client_rpcs()
    started = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    seconds = time.perf_counter() - started
    sent = {name: count - before.get(name, 0) for name, count in count_client_rpcs().items()}
    words = [f"{count} {name.removeprefix('REQUEST_')}" for name, count in sent.items() if count]
    return [tool, jobs, what, f"{seconds:.1f}", ", ".join(words) or "0"]


def measure_hpcbench(folder: Path) -> list[list[object]]:
    """Submit, look at and cancel a suite of a thousand experiments with two evals each."""
    jobs = EXPERIMENTS * (1 + len(EVALS))
    profile, suite, root = folder / "held.yaml", folder / "thousand.yaml", folder / "results"
    profile.write_text(json.dumps({"extra_sbatch": {"hold": True}}), encoding="utf-8")
    values = {
        "cmd": "command",
        "device": "cpu",
        "requirements": {"gpu": 0, "cpus": 1, "mem_gb": 0.1, "time": 10},
        "eval_requirements": {"gpu": 0, "cpus": 1, "mem_gb": 0.1, "time": 10},
        "eval_dataset": list(EVALS),
        "eval_args": {"command": list(SCORE)},
        "args": {"command": ["sleep", "600"]},
        "experiment": [{"name": f"e{number:04}"} for number in range(EXPERIMENTS)],
    }
    suite.write_text(json.dumps(values), encoding="utf-8")
    place = ("--save-dir", str(root))
    to_submit = ("submit", str(suite), "--cluster", str(profile), *place)
    return [
        timed("submit", "hpcbench", jobs, *HPCBENCH, *to_submit),
        timed("submit again: nothing to do", "hpcbench", jobs, *HPCBENCH, *to_submit),
        timed("status", "hpcbench", jobs, *HPCBENCH, "status", *place),
        timed("cancel all", "hpcbench", jobs, *HPCBENCH, "cancel", "*", *place),
    ]


def measure_shell(_folder: Path) -> list[list[object]]:
    """Do the same with one sbatch a job and afterok, as a person would by hand."""
    jobs = EXPERIMENTS * (1 + len(EVALS))
    return [
        timed("submit", "sbatch loop", jobs, "bash", "-c", SBATCH_LOOP),
        timed("status", "sbatch loop", jobs, "squeue", "--me"),
        timed("cancel all", "sbatch loop", jobs, "scancel", "--me"),
    ]


def measure_submitit(folder: Path) -> list[list[object]]:
    """Do the same with submitit's own submit, state and cancel, one call a job."""
    jobs = SUBMITIT_EXPERIMENTS * (1 + len(EVALS))
    loop = (sys.executable, "-m", "tests.benchmarks.submitit_loop")
    place = (str(folder / "submitit"), str(SUBMITIT_EXPERIMENTS))
    return [
        timed(words, "submitit loop", jobs, *loop, what, *place)
        for what, words in (("submit", "submit"), ("status", "status"), ("cancel", "cancel all"))
    ]


def wait_for_empty_queue() -> None:
    """Wait until no job is left, so that the next tool starts as this one did."""
    while run_command(["squeue", "--me", "-h"]).strip():
        time.sleep(1)


if __name__ == "__main__":
    main(sys.argv[1:])
