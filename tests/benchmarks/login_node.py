"""How long the login node's commands take beside Python itself, in processor time, the best of several runs.

    python -m tests.benchmarks.login_node

In: nothing. Out: a Markdown table with the ratio to `python -c pass`. A benchmark, not a test: it asserts nothing.
"""

from __future__ import annotations

import os
import sys
import tempfile

from tabulate import tabulate

RUNS = 7


def measure_s(*arguments: str) -> float:
    """Return the least processor time of several runs: a busy machine makes a run longer, never shorter."""
    quiet = [(os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0)]
    times = []
    for _ in range(RUNS):
        pid = os.posix_spawn(sys.executable, [sys.executable, *arguments], os.environ, file_actions=quiet)
        _, status, usage = os.wait4(pid, 0)
        if status:
            raise SystemExit(f"{' '.join(arguments)}: wait status {status}")
        times.append(usage.ru_utime + usage.ru_stime)
    return min(times)


def main() -> None:
    """Measure the commands and print the table."""
    with tempfile.TemporaryDirectory() as folder:
        commands = {
            "hpcbench --help": ("-m", "hpcbench", "--help"),
            "hpcbench submit --help": ("-m", "hpcbench", "submit", "--help"),
            "hpcbench status": ("-m", "hpcbench", "status", "--save-dir", folder),
            "hpcbench plan": ("-m", "hpcbench", "plan", "configs/quickstart.yaml", "--save-dir", folder),
        }
        python_s = measure_s("-c", "pass")
        rows = [["python -c pass", f"{python_s:.3f}", "1.0"]]
        for name, arguments in commands.items():
            seconds = measure_s(*arguments)
            rows.append([name, f"{seconds:.3f}", f"{seconds / python_s:.1f}"])
    print(tabulate(rows, headers=["command", "processor seconds", "ratio"], tablefmt="github", disable_numparse=True))


if __name__ == "__main__":
    main()
