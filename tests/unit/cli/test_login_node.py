"""The login-node path is light: no verb imports torch and its friends, and help is quick."""

from __future__ import annotations

import os
import subprocess
import sys

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
        ["sft", "--help"],
        ["sft", "--lora_rank", "0"],
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
    # Processor time and the best of several runs: a busy machine must not decide.
    def best_of(arguments: list[str], runs: int = 7) -> float:
        quiet = [(os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0)]
        times = []
        for _ in range(runs):
            pid = os.posix_spawn(sys.executable, [sys.executable, *arguments], os.environ, file_actions=quiet)
            _, status, usage = os.wait4(pid, 0)
            assert status == 0
            times.append(usage.ru_utime + usage.ru_stime)
        return min(times)

    assert best_of(["-m", "hpcbench", "--help"]) < 10 * best_of(["-c", "pass"])
