"""What a plain loop over submitit does, for `benchmark_submit`: submit, look at or cancel experiments with two evals.

    python -m tests.benchmarks.submitit_loop submit|status|cancel FOLDER COUNT

In: a folder for submitit's files, and how many experiments to submit. Out: job ids in FOLDER/ids. Jobs are held.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import submitit

EVALS = 2


def submit(folder: Path, count: int) -> None:
    """Submit one job after the other, as submitit's documentation shows."""
    executor = submitit.SlurmExecutor(folder=folder)
    ids = []
    for _ in range(count):
        executor.update_parameters(time=10, mem="100M", dependency=None, additional_parameters={"hold": True})
        train = executor.submit(time.sleep, 600)
        executor.update_parameters(dependency=f"afterok:{train.job_id}")
        ids += [train.job_id, *(executor.submit(time.sleep, 600).job_id for _ in range(EVALS))]
    (folder / "ids").write_text("\n".join(ids), encoding="utf-8")


def main(what: str, folder: Path, count: int) -> None:
    """Do one of the three."""
    if what == "submit":
        submit(folder, count)
        return
    jobs = [submitit.SlurmJob[None](folder, number) for number in (folder / "ids").read_text("utf-8").split()]
    if what == "status":
        states = [job.state for job in jobs]
        print(f"{states.count('PENDING')} of {len(states)} pending")
    else:
        for job in jobs:
            job.cancel(check=False)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]))
