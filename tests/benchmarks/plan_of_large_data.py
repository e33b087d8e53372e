"""What `hpcbench plan` costs for a suite with a large data file, beside the same suite with a small one.

    python -m tests.benchmarks.plan_of_large_data [GIGABYTES]

In: the size, 5 by default; a file of that size is written to the folder of temporary files and removed. Out: a Markdown
table of seconds and peak memory. A benchmark, not a test: it asserts nothing.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from pathlib import Path

from tabulate import tabulate

BLOCK_BYTES = 4 << 20


def write_rows(path: Path, num_bytes: int) -> None:
    """Write JSON lines of about that size."""
    rows: list[str] = []
    size = 0
    while size < min(num_bytes, BLOCK_BYTES):
        number = len(rows)
        rows.append(json.dumps({"query": f"What is {number}?", "response": f"{number} " * (20 + number % 400)}) + "\n")
        size += len(rows[-1])
    block = "".join(rows).encode()
    with path.open("wb") as stream:
        for _ in range(max(1, num_bytes // len(block))):
            stream.write(block)
        os.fsync(stream.fileno())


def run_plan(suite: Path, environ: dict[str, str], *words: str) -> list[str]:
    """Return wall seconds, processor seconds and peak MiB of one plan."""
    quiet = [(os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0)]
    command = [sys.executable, "-m", "hpcbench", *words, str(suite), "--save-dir", str(suite.parent / "logs")]
    started = time.monotonic()
    pid = os.posix_spawn(sys.executable, command, environ, file_actions=quiet)
    _, status, usage = os.wait4(pid, 0)
    wall_s = time.monotonic() - started
    if status:
        raise SystemExit(f"{' '.join(command)}: wait status {status}")
    return [f"{wall_s:.2f}", f"{usage.ru_utime + usage.ru_stime:.2f}", f"{usage.ru_maxrss / 1024:.0f}"]


def main() -> None:
    """Write the files, measure and print the table."""
    gigabytes = float(sys.argv[1]) if len(sys.argv) > 1 else 5.0
    rows = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        environ = {**os.environ, "XDG_CACHE_HOME": str(folder / "cache")}
        for label, num_bytes in (("1 kB", 1000), (f"{gigabytes:g} GB", int(gigabytes * 1e9))):
            write_rows(folder / f"{num_bytes}.jsonl", num_bytes)
            suite = folder / f"s{num_bytes}.yaml"
            suite.write_text(
                f"cmd: sft\nargs: {{model: org/m, dataset: {num_bytes}.jsonl}}\nexperiment: [{{name: a}}]\n"
            )
            rows += [[label, *run_plan(suite, environ, "plan")] for _ in range(3)]
    print(
        tabulate(rows, headers=["data", "wall s", "processor s", "peak MiB"], tablefmt="github", disable_numparse=True)
    )


if __name__ == "__main__":
    main()
