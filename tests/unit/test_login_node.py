"""The login-node path is light: no verb imports torch and its friends, and help is quick."""

from __future__ import annotations

import subprocess
import sys
import time

import pytest

HEAVY = ("torch", "transformers", "datasets", "lm_eval", "peft", "accelerate", "numpy")

PROBE = """
import sys
from hpcbench.cli import main
sys.argv = ["hpcbench", *{arguments!r}]
try:
    main()
except SystemExit:
    pass
print("HEAVY", [name for name in {heavy!r} if name in sys.modules])
"""


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["--version"],
        ["submit", "--help"],
        ["plan", "configs/quickstart.yaml", "--cluster", "local", "--script"],
        ["status"],
        ["why"],
        ["cancel", "nothing"],
        ["collect"],
        ["collect", "--format", "html"],
        ["schema"],
        ["init", "-o", "-"],
        ["doctor", "--cluster", "local", "--no-job"],
        ["clean", "--dry-run"],
    ],
)
def test_no_verb_imports_torch(arguments: list[str], tmp_path_factory: pytest.TempPathFactory) -> None:
    save_dir = tmp_path_factory.mktemp("logs")
    if arguments[0] in {"plan", "status", "why", "cancel", "collect", "doctor", "clean"}:
        arguments = [*arguments, "--save-dir", str(save_dir)]
    code = PROBE.format(arguments=arguments, heavy=HEAVY)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "HEAVY []" in done.stdout, done.stdout
    assert "Traceback" not in done.stderr


def test_help_takes_at_most_ten_times_as_long_as_python_itself() -> None:
    def best_of(arguments: list[str], runs: int = 7) -> float:
        times = []
        for _ in range(runs):
            started = time.perf_counter()
            subprocess.run([sys.executable, *arguments], capture_output=True, check=True)
            times.append(time.perf_counter() - started)
        return min(times)

    assert best_of(["-m", "hpcbench.cli", "--help"]) < 10 * best_of(["-c", "pass"])
