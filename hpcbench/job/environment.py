"""The machine and software a job ran on: versions, git, GPUs, driver, host, scheduler ids.

Anything that cannot be found out is null; nothing here imports torch.
"""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import threading
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import hpcbench
from hpcbench.schemas import variables

PACKAGES = (
    "torch",
    "transformers",
    "peft",
    "trl",
    "accelerate",
    "datasets",
    "tokenizers",
    "lm_eval",
    "deepspeed",
    "bitsandbytes",
    "flash_attn",
    "numpy",
    "submitit",
)
QUERY_TIMEOUT_S = 15.0


class MachineQuestion:
    """The GPUs and the state of the suite's git repository, asked for in a thread."""

    def __init__(self, suite_file: str, environ: Mapping[str, str] = os.environ) -> None:
        self._answer: dict[str, Any] = {"gpus": None, "git": None}
        self._thread = threading.Thread(target=self._ask, args=(suite_file, environ), daemon=True)  # drivers may hang
        self._thread.start()

    def _ask(self, suite_file: str, environ: Mapping[str, str]) -> None:
        self._answer["gpus"] = _gpus(environ)
        self._answer["git"] = _git(suite_file)

    def wait(self, patience_s: float) -> dict[str, Any]:
        """Return the answer, nulls where it does not come in time."""
        self._thread.join(patience_s)
        return dict(self._answer)


def describe_environment(
    machine: MachineQuestion,
    *,
    patience_s: float = QUERY_TIMEOUT_S,
    environ: Mapping[str, str] = os.environ,
    worker: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Return the machine, the versions and the scheduler's ids for a record.

    `worker` replaces what is told of this Python, where the job's worker ran in another one.
    """
    return {
        **machine.wait(patience_s),
        "hpcbench": hpcbench.__version__,
        "python": platform.python_version(),
        "python_executable": sys.executable,
        "packages": {name: version for name in PACKAGES if (version := _version(name)) is not None},
        "host": platform.node(),
        "platform": platform.platform(),
        "cpu": _cpu_name(),
        "setup_failures": setup_failures(environ),
        "num_cpus": len(os.sched_getaffinity(0)),  # os.cpu_count() also counts cores that the job may not use
        "slurm": {
            name.removeprefix("SLURM_").lower(): environ[name]
            for name in (
                "SLURM_JOB_ID",
                "SLURM_ARRAY_JOB_ID",
                "SLURM_ARRAY_TASK_ID",
                "SLURM_RESTART_COUNT",
                "SLURM_JOB_PARTITION",
                "SLURM_JOB_NODELIST",
                "SLURM_CLUSTER_NAME",
                "SLURM_JOB_ACCOUNT",
            )
            if name in environ
        },
        **(worker or {}),
    }


def setup_failures(environ: Mapping[str, str]) -> list[str]:
    """Return the `setup` lines of the profile that failed before this job, each with its exit code."""
    return environ.get(variables.SETUP_FAILURES, "").splitlines()


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _cpu_name() -> str | None:
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    names = [line.partition(":")[2].strip() for line in text.splitlines() if line.startswith("model name")]
    return names[0] if names else None


def _gpus(environ: Mapping[str, str]) -> dict[str, Any] | None:
    if environ.get("CUDA_VISIBLE_DEVICES") == "":
        return None
    text = _output(
        ["nvidia-smi", "--query-gpu=index,name,memory.total,driver_version", "--format=csv,noheader,nounits"]
    )
    rows = [[cell.strip() for cell in line.split(",")] for line in text.splitlines() if line.count(",") == 3]  # noqa: PLR2004
    if not rows:
        return None
    visible = environ.get("CUDA_VISIBLE_DEVICES")
    wanted = None if visible is None else {name.strip() for name in visible.split(",")}
    # CUDA also takes UUIDs there, which match no index.
    chosen = [row for row in rows if wanted is None or row[0] in wanted] or rows
    return {
        "names": [row[1] for row in chosen],
        "memory_total_mib": [int(row[2]) if row[2].isdigit() else None for row in chosen],
        "driver": chosen[0][3],
    }


def _git(suite_file: str) -> dict[str, Any] | None:
    folder = str(Path(suite_file).parent) if suite_file else "."
    commit = _output(["git", "-C", folder, "rev-parse", "HEAD"]).strip()
    if not commit:
        return None
    # Hundreds of jobs that start at once must not lock the user's repository.
    status = ["git", "--no-optional-locks", "-C", folder, "status", "--porcelain"]
    return {"commit": commit, "dirty": bool(_output(status).strip())}


def _output(command: list[str]) -> str:
    try:
        done = subprocess.run(command, capture_output=True, timeout=QUERY_TIMEOUT_S, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.decode(errors="replace") if done.returncode == 0 else ""
