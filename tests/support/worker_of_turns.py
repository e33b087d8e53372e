"""A worker without torch for tests of supervisors: it does what the name of each job says, turn after turn.

`eval-crash...` dies, `eval-slow...` goes on until it is told to stop, others write a score. It starts in hundredths of a
second: standard library alone.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

LAUNCHER_SAYS = "exitcode  : -11 (pid: 7)"


def main() -> None:
    job, attempt, waits = Path(sys.argv[1]), Path(sys.argv[2]), "--wait" in sys.argv
    while True:
        print(f"{job.name} in process {os.getpid()}", flush=True)
        if job.name.startswith("eval-crash"):
            os.write(2, f"{LAUNCHER_SAYS}\n".encode())  # which stays where the output of the first turn went
            os.kill(os.getpid(), 11)
        while job.name.startswith("eval-slow"):
            if (attempt / "stop.json").exists():
                write(attempt / "interrupted.json", {"schema_version": 1})
                return
            time.sleep(0.02)
        task = {"metrics": {"acc": 0.5}, "num_samples": 1}
        scores = {"kind": "eval", "dataset": job.name, "primary_task": "t", "tasks": {"t": task}}
        write(attempt / "metrics.json", scores)
        if not waits:
            return
        while not (attempt / "next.json").exists():
            time.sleep(0.02)
        following = json.loads((attempt / "next.json").read_text())
        job, attempt, waits = Path(following["job_folder"]), Path(following["attempt_folder"]), following["waits"]
        log = os.open(attempt / "output.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(log, 1)


def write(path: Path, value: object) -> None:
    staging = path.with_suffix(".tmp")
    staging.write_text(json.dumps(value))
    staging.replace(path)


if __name__ == "__main__":
    main()
