"""What `collect` and `status` cost for a large sweep, beside reading and parsing the same files with the standard library.

    python -m tests.benchmarks.collect [EXPERIMENTS] [--keep FOLDER]

In: the number of experiments, 10,000 by default, each with a training and an eval; `--keep` writes them to a folder, or
takes those that are there. Out: a Markdown table of processor time, as a ratio to the reading, and peak memory. Each
command is a process of its own, the start of Python included; files are in the page cache, and a scheduler is not asked.
A benchmark, not a test: it asserts nothing.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tabulate import tabulate

from hpcbench.storage.json_files import write_json
from hpcbench.storage.paths import SuitePaths
from tests.support.large_sweep import FAILS_EVERY, SUITE, sweep, write_save_dir

HPCBENCH = (sys.executable, "-m", "hpcbench")
READING = (sys.executable, "-m", "tests.benchmarks.read_and_parse")
MIB = 2**20


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """One command."""

    what: str
    cpu_s: float
    """Processor time, which a busy machine hardly changes, of the best run; so too the next."""
    wall_s: float
    peak_mib: float
    size_mb: float | None = None
    """Of what it wrote."""


def main() -> None:
    """Write the files, run the commands and print the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("experiments", nargs="?", type=int, default=10_000)
    parser.add_argument("--keep", type=Path, metavar="FOLDER")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = arguments.keep or Path(scratch) / "logs"
        if not SuitePaths(folder, SUITE).plan.exists():
            write_save_dir(folder, arguments.experiments)
        print_table(measure_all(folder, Path(scratch)))


def measure_all(save_dir: Path, scratch: Path) -> Iterator[Measured]:
    """Run each command where the one before has left things."""
    os.environ["XDG_CACHE_HOME"] = str(scratch / "cache")
    place = ("--save-dir", str(save_dir))
    report = scratch / "report.md"
    to_markdown = ("collect", *place, "-o", str(report))
    yield measure("read and parse", *READING, str(save_dir), runs=2)
    yield measure("collect", *HPCBENCH, *to_markdown, wrote=report)
    yield measure("collect again", *HPCBENCH, *to_markdown, wrote=report, runs=2)
    change_one(save_dir)
    yield measure("collect after one change", *HPCBENCH, *to_markdown, wrote=report)
    yield measure("status", *HPCBENCH, "status", *place, runs=2)
    for form in ("html", "json", "csv"):
        written = scratch / f"report.{form}"
        yield measure(
            f"collect to {form}", *HPCBENCH, "collect", *place, "--format", form, "-o", str(written), wrote=written
        )


def measure(what: str, *command: str, wrote: Path | None = None, runs: int = 1) -> Measured:
    """Run a command; of several runs the fastest counts, since a busy machine makes a run longer, never shorter."""
    found = min((_run(*command) for _ in range(runs)), key=lambda run: run[0])
    size_mb = None if wrote is None else wrote.stat().st_size / 1e6
    return Measured(what=what, cpu_s=found[0], wall_s=found[1], peak_mib=found[2], size_mb=size_mb)


def _run(*command: str) -> tuple[float, float, float]:
    """Return processor time, time on the wall (both in seconds) and peak memory (in MiB) of a command."""
    quiet = [(os.POSIX_SPAWN_OPEN, number, os.devnull, os.O_WRONLY, 0) for number in (1, 2)]
    started = time.perf_counter()
    pid = os.posix_spawn(command[0], command, os.environ, file_actions=quiet)
    _, status, usage = os.wait4(pid, 0)
    if status:
        raise SystemExit(f"{' '.join(command)}: wait status {status}")
    return usage.ru_utime + usage.ru_stime, time.perf_counter() - started, usage.ru_maxrss * 1024 / MIB


def print_table(found: Iterator[Measured]) -> None:
    """Print a line as soon as it is measured, and the table at the end."""
    rows = []
    reading_s = None
    for row in found:
        reading_s = reading_s or row.cpu_s
        size = "" if row.size_mb is None else f"{row.size_mb:.1f}"
        times = f"{row.cpu_s:.2f}", f"{row.cpu_s / reading_s:.2f}", f"{row.wall_s:.1f}"
        rows.append([row.what, *times, f"{row.peak_mib:.0f}", size])
        print(*rows[-1], file=sys.stderr, flush=True)
    headers = ["what", "processor s", "ratio to reading", "wall s", "peak MiB", "MB written"]
    sides = ("left", *["right"] * 5)
    print(tabulate(rows, headers=headers, tablefmt="github", disable_numparse=True, colalign=sides))


def change_one(save_dir: Path) -> None:
    """Replace one record by another, as a retry does."""
    name = next(iter(sweep(save_dir, FAILS_EVERY))).name
    paths = SuitePaths(save_dir, SUITE).job(name, "train")
    record = json.loads(paths.record.read_text(encoding="utf-8"))
    record["metrics"]["train_loss"] += 0.001
    write_json(paths.record, record)


if __name__ == "__main__":
    main()
