"""The login-node path is light: no verb imports torch and its friends, and help imports no models."""

from __future__ import annotations

import subprocess
import sys

import pytest

from hpcbench.storage.json_files import write_json
from hpcbench.storage.paths import SuitePaths

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
        ["collect", "--format", "terminal"],
        ["collect", "--format", "html"],
        ["compare", "--help"],
        ["compare", "tests/recorded/save_dir_0_1/logs:quickstart/full", "quickstart"],
        [
            "compare",
            "tests/recorded/save_dir_0_1/logs:quickstart/full",
            "tests/recorded/save_dir_0_1/logs:quickstart/lora-r4",
        ],
        ["schema"],
        ["environment", "list"],
        ["init", "-o", "-"],
        ["doctor", "--cluster", "local", "--no-job"],
        ["clean", "--dry-run"],
        ["sft", "--help"],
        ["infer", "--help"],
        ["export-model", "--help"],
        ["export-model", "--ckpt_dir", "configs/quickstart/base", "--device", "cpu"],
        ["sft", "--lora_rank", "0"],
    ],
)
def test_no_verb_imports_torch(arguments: list[str], tmp_path_factory: pytest.TempPathFactory) -> None:
    save_dir = tmp_path_factory.mktemp("logs")
    experiments = [{"name": "nothing", "cmd": "sft", "jobs": ["train", "eval-arc"]}]
    write_json(SuitePaths(save_dir, "tuners").plan, {"suite": "tuners", "experiments": experiments})
    if arguments[0] in {"plan", "status", "why", "cancel", "collect", "doctor", "clean"}:
        arguments = [*arguments, "--save-dir", str(save_dir)]
    code = PROBE.format(arguments=arguments, heavy=HEAVY)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "HEAVY []" in done.stdout, done.stdout
    assert "Traceback" not in done.stderr


def test_help_imports_neither_models_nor_rich() -> None:
    code = PROBE.format(arguments=["--help"], heavy=("pydantic", "rich", "yaml", "jinja2"))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "HEAVY []" in done.stdout, done.stdout
