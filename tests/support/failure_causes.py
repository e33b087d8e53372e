"""The ways in which a job can die, each as one experiment, and how its end is made readable and repeatable.

In: a folder. Out: suites of experiments that die on a real Slurm, and texts without what differs from run to run.
"""

from __future__ import annotations

import json
import re
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.support.places import QUICKSTART

ECC = "RuntimeError: CUDA error: uncorrectable ECC error encountered"
GPU_OOM = (
    "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 79.25 GiB "
    "of which 1.50 GiB is free."
)


@dataclass(frozen=True)
class Death:
    """One way to die."""

    name: str
    how: str
    """What happens to it, as the document says."""
    values: Mapping[str, Any] = field(default_factory=dict)
    """The experiment, beside its name."""


def shell(text: str, **values: Any) -> dict[str, Any]:
    """Return an experiment that runs a line of shell."""
    return {"args": {"command": ["sh", "-c", text]}, **values}


def python(text: str, **values: Any) -> dict[str, Any]:
    """Return an experiment that runs a line of Python."""
    return {"args": {"command": [sys.executable, "-c", text]}, **values}


def training(dataset: Path, **args: Any) -> dict[str, Any]:
    """Return a small training."""
    return {
        "cmd": "sft",
        "requirements": {"mem_gb": 2},
        "args": {
            "model_type": "pig-latin-base",
            "model_id_or_path": str(QUICKSTART / "base"),
            "dataset": str(dataset),
            "train_dataset_sample": 200,
            "dtype": "fp32",
            "sft_type": "full",
            "batch_size": 4,
            "gradient_accumulation_steps": 1,
            "max_length": 64,
            "max_steps": 40,
            "logging_steps": 1,
            "dataloader_num_workers": 0,
            **args,
        },
    }


ONE_GPU: Mapping[str, Any] = {"device": "cuda", "requirements": {"gpu": 1}}
WAITS = "echo working; exec sleep 600"
SAVES = 'trap "echo saved; exit 75" TERM; echo working; while :; do sleep 0.2; done 2>/dev/null'
"""A program that, told to stop, asks to be started again."""
KEPT = "PartitionName=gpu Nodes=gpu[1-2] Default=YES State=UP MaxTime=08:00:00 DefaultTime=01:00:00 PreemptMode=OFF"
"""The partition of all other deaths, whose jobs no other job may displace."""


def write_broken_data(file: Path) -> Path:
    """Write data with a bad row that only a job finds: of so long a CSV file plan reads the beginning alone."""
    rows = [f"question,{'answer ' * 1500}"] * 1800
    file.write_text("\n".join(["instruction,output", *rows, "a question without an answer,"]) + "\n", encoding="utf-8")
    return file


def list_deaths(folder: Path) -> tuple[Death, ...]:
    """Return all ways to die that share one suite; the data of one of them is written into the folder."""
    broken = write_broken_data(folder / "broken.csv")
    fill = 'echo saving the checkpoint; cat /dev/zero > "$HPCBENCH_ATTEMPT/checkpoint.bin"'
    fill_1_mib = 'echo saving the checkpoint; head -c 1M /dev/zero > "$HPCBENCH_ATTEMPT/checkpoint.bin"; exit 0'
    return (
        Death("exit-code", "a program leaves with exit code 3", shell("echo reading config; exit 3")),
        Death("no-program", "the program is not there", {"args": {"command": ["no-such-program", "--all"]}}),
        Death("segfault", "a crash in compiled code", python("import ctypes; ctypes.string_at(0)")),
        Death("gpu-memory", "the GPU's memory is not enough", shell(f"echo '{GPU_OOM}'; exit 1")),
        Death(
            "host-memory",
            "Slurm kills the whole job for using more memory than it asked for",
            python("import time; x = b'1' * (700 << 20); print(len(x)); time.sleep(60)"),
        ),
        Death(
            "host-memory-error",
            "the node refuses more memory",
            shell(f"ulimit -v 300000; exec {sys.executable} -c 'b\"1\" * (1 << 30)'"),
        ),
        Death("broken-gpu", "a GPU of the node is broken", shell(f"echo '{ECC}'; exit 1", **ONE_GPU)),
        Death("disk-full", "the disk fills up during the run", shell(fill)),
        Death("disk-full-record", "the program succeeds, but not even its record fits on the disk", shell(fill_1_mib)),
        Death("bad-metrics", "a program writes figures that are not JSON", shell('echo 0.5 > "$HPCBENCH_METRICS"')),
        Death("bad-data", "a row of the training data is broken", training(broken)),
        Death(
            "diverged",
            "the loss becomes NaN",
            training(QUICKSTART / "train.jsonl", learning_rate=1e30, warmup_ratio=0, max_grad_norm=0),
        ),
        Death("cancel", "`hpcbench cancel`", shell(WAITS)),
        Death("scancel", "`scancel`, by somebody", shell(WAITS)),
        Death("time-limit", "the time limit comes near, and the program cannot resume", shell(WAITS)),
        Death("attempts", "the time limit comes near, and no attempts are left", shell(SAVES)),
        Death(
            "preempted",
            "another job takes its place, and Slurm may not requeue it",
            shell(WAITS, requirements={"partition": "low", "mem_gb": 1}),
        ),
        Death("node-lost", "its node dies, and Slurm may not requeue it", shell(WAITS)),
    )


def suite_of(deaths: tuple[Death, ...]) -> dict[str, Any]:
    """Return the suite."""
    return {
        "cmd": "command",
        "device": "cpu",
        "max_attempts": 1,
        "requirements": {"gpu": 0, "mem_gb": 0.5, "time": "10m"},
        "experiment": [{"name": death.name, **death.values} for death in deaths],
    }


SETUPS = {
    "setup": Death(
        "setup",
        "a setup line of the profile fails, and with it the job",
        {"setup": ["source /no/such/venv/bin/activate || exit 1"]},
    ),
    "package": Death(
        "package", "the profile's Python lacks hpcbench", {"setup": ["unset PYTHONPATH"], "python": "bare/bin/python"}
    ),
    "no-python": Death("no-python", "the profile's Python is not there", {"python": "/no/such/python"}),
}
"""Deaths of a whole cluster profile: its values."""


def write_profiles(folder: Path) -> None:
    """Write a cluster profile for each of SETUPS where `hpcbench` finds it when it runs in this folder."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder / "bare")], check=True)
    clusters = folder / "configs" / "clusters"
    clusters.mkdir(parents=True)
    for name, death in SETUPS.items():
        values = dict(death.values)
        if values.get("python") == "bare/bin/python":
            values["python"] = str(folder / "bare" / "bin" / "python")
        (clusters / f"{name}.yaml").write_text(json.dumps(values), encoding="utf-8")


@contextmanager
def small_disk(folder: Path, *, size_kib: int) -> Iterator[None]:
    """Put a disk of this size where the folder is."""
    folder.mkdir(parents=True)
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size_kib}k", "none", str(folder)]
    done = subprocess.run(mount, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        pytest.skip(f"no small disk can be had here: {done.stderr.strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def enlarge_disk(folder: Path, *, size_kib: int) -> None:
    """Give a small disk more room."""
    subprocess.run(["mount", "-o", f"remount,size={size_kib}k", str(folder)], check=True)


def normalise(text: str, folder: Path) -> str:
    """Replace what differs from run to run: ids, times, places, speeds."""
    patterns = (
        (re.escape(str(folder)), "<folder>"),
        (re.escape(sys.executable), "python"),
        (re.escape(socket.gethostname()), "<host>"),
        (r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d([.,]\d+)?Z?", "<time>"),
        (r"scheduler id: \d+(_\d+)?", "scheduler id: <id>"),
        (r"/slurm/\d+_(\d+)\.out", r"/slurm/<id>.out"),
        (r"(JOB |STEP |StepId=|JobId=|[Jj]ob |slurm_script: job)\d+(_\d+)?(\.\w+)?", r"\1<id>"),
        # Accounting names who it was, once the queue has forgotten the job.
        ("by you( or an administrator)?", "by you or an administrator"),
        # So the row is cut or not.
        ("administrator; the pro…", "administrator; the program left at TERM"),
        (r"\S+/slurm_script", "<spool>/slurm_script"),
        (r'File "[^"]*/(site-packages|hpcbench|python3\.\d+)/', r'File "<\1>/'),
        (r"line \d+", "line <n>"),
        (r"[Tt]hread 0x[0-9a-f]+( \[\w+\])?", "thread <n>"),
        (r"\bgpu[12]\b", "<node>"),
        # Where a row is cut depends on how long the ids are.
        (r"StepId=<id>[^\n]*…", "StepId=<id> …"),
        (r"<python3\.\d+>", "<python>"),
        (r"\d+\.\d+ samples/s, \d+ tokens/s", "<n> samples/s, <n> tokens/s"),
        (r"\(\d+ > (\d+)\)", r"(<n> > \1)"),
    )
    for pattern, replacement in patterns:
        text = re.sub(pattern, replacement, text)
    return text
