"""Trainings that are interrupted: small ones of many steps, and what a test has to see of them.

In: what a test wants. Out: suites, losses, processes, and the interruptions themselves. All of it is real: Slurm,
torch, signals.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hpcbench.scheduler.slurm.commands import run_command
from hpcbench.schemas.metrics import TrainMetrics
from hpcbench.schemas.record import Record, read_record
from hpcbench.schemas.suite_folder import SuiteOnDisk, read_suites
from hpcbench.storage.json_files import read_json
from hpcbench.storage.paths import AttemptPaths, JobPaths
from hpcbench.worker.progress_file import read_eval_losses, read_steps
from tests.support.places import QUICKSTART
from tests.support.slurm_suites import hpcbench, wait_until, write_suite

NUM_STEPS = 60
LORA_ARGS = {"sft_type": "lora", "lora_target_modules": "ALL", "lora_dropout_p": 0.1}
START_TIMEOUT_S = 150
"""Two cores, shared: importing torch in several jobs at once takes its time."""


def training(name: str, **values: Any) -> dict[str, Any]:
    """Return an experiment, lora unless it is of another kind; `requirements` and `args` come on top of the suite's."""
    args = values.pop("args", {})
    return {"name": name, **values, "args": {**({} if "sft_type" in args else LORA_ARGS), **args}}


def submit_trainings(folder: Path, *experiments: dict[str, Any], name: str = "interrupted") -> Path:
    """Submit a suite of trainings of 60 steps, a tenth of a second each; return the save directory."""
    suite = {
        "cmd": "sft",
        "device": "cpu",
        "requirements": {"gpu": 0, "mem_gb": 1, "time": "10m"},
        "args": {
            "model_type": "pig-latin-base",
            "model_id_or_path": str(QUICKSTART / "base"),
            "dataset": str(QUICKSTART / "train.jsonl"),
            "val_dataset": str(QUICKSTART / "val.jsonl"),
            "val_dataset_sample": 16,
            "train_dataset_sample": 400,
            "dtype": "fp32",
            "batch_size": 16,
            "gradient_accumulation_steps": 1,
            "max_length": 64,
            "learning_rate": 3e-3,
            "max_steps": NUM_STEPS,
            "eval_steps": 25,
            "save_steps": 10,
            "logging_steps": 10,
            "dataloader_num_workers": 0,
        },
        "experiment": list(experiments),
    }
    save_dir = folder / "logs"
    hpcbench("submit", str(write_suite(folder / f"{name}.yaml", suite)), "--save-dir", str(save_dir))
    return save_dir


def job_of(save_dir: Path, experiment: str, suite: str = "interrupted") -> JobPaths:
    """Return the files of an experiment's training."""
    return JobPaths(save_dir / suite / experiment / "train")


def scheduler_id(save_dir: Path, experiment: str, suite: str = "interrupted") -> str:
    """Return the Slurm id of an experiment's training."""
    suites: list[SuiteOnDisk] = read_suites(save_dir, [suite])
    submission, index = suites[0].latest()[experiment, "train"]
    found = submission.element_id(index)
    assert found is not None
    return found


def record_of(job: JobPaths) -> Record:
    """Return a job's record."""
    record = read_record(job.record)
    assert record is not None, sorted(path.name for path in job.folder.iterdir())
    return record


def metrics_of(job: JobPaths) -> TrainMetrics:
    """Return what a training measured."""
    metrics = record_of(job).metrics
    assert isinstance(metrics, TrainMetrics), record_of(job).cause
    return metrics


def results(job: JobPaths) -> tuple[list[tuple[int, float | None]], dict[int, float | None]]:
    """Return the loss of each step and each eval_loss, unrounded, over all attempts."""
    fingerprint = (read_json(job.request) or {})["fingerprint"]
    return [(step.step, step.loss) for step in read_steps(job, fingerprint)], read_eval_losses(job, fingerprint)


def assert_same_result(job: JobPaths, reference: JobPaths) -> None:
    """Check that two trainings gave the same losses and weights, to the last bit."""
    (losses, eval_losses), (expected, expected_evals) = results(job), results(reference)
    assert [step for step, _ in losses] == list(range(1, metrics_of(reference).num_steps + 1))
    assert losses == expected
    assert eval_losses == expected_evals
    for name in ("best", "last"):
        files = sorted((reference.checkpoints / name).glob("*.safetensors"))
        assert files
        for file in files:
            assert (job.checkpoints / name / file.name).read_bytes() == file.read_bytes(), file


def step_seconds(job: JobPaths) -> dict[int, float]:
    """Return the seconds of each step, as the last attempt that made it told them, from the attempts' own files."""
    seconds: dict[int, float] = {}
    folders = sorted(job.folder.glob("attempt-*"), key=lambda folder: int(folder.name.removeprefix("attempt-")))
    for history in (AttemptPaths(folder).history for folder in folders):
        for line in history.read_text(encoding="utf-8").splitlines() if history.exists() else ():
            # The last line of an attempt that was killed may be cut short.
            with contextlib.suppress(json.JSONDecodeError):
                value = json.loads(line)
                if "step_time_s" in value:
                    seconds[value["step"]] = value["step_time_s"]
    return seconds


def stop_reason(job: JobPaths, *, attempt: int) -> str:
    """Return which signal an attempt was stopped by first: `timeout` is USR2, `terminate` TERM."""
    return str((read_json(job.attempt(attempt).stop) or {})["reason"])


def await_step(job: JobPaths, step: int, *, attempt: int = 1) -> None:
    """Wait until an attempt has made a step."""
    history = job.attempt(attempt).history

    def made() -> bool:
        with contextlib.suppress(FileNotFoundError):
            return f'"step": {step}, "loss"' in history.read_text(encoding="utf-8")
        return False

    wait_until(made, timeout_s=START_TIMEOUT_S, what=f"{history} reaches step {step}")


def await_training(job: JobPaths, *, attempt: int = 1) -> None:
    """Wait until an attempt has made some steps."""
    history = job.attempt(attempt).history
    wait_until(
        lambda: history.exists() and history.read_text(encoding="utf-8").count("\n") > 2,
        timeout_s=START_TIMEOUT_S,
        what=f"{history} grows",
    )


def await_record(job: JobPaths, state: str) -> None:
    """Wait until a job's record has a state."""
    wait_until(
        lambda: (record := read_record(job.record)) is not None and record.state == state,
        timeout_s=START_TIMEOUT_S,
        what=f"{job.record} is {state}",
    )


def start_requeued(element_id: str) -> None:
    """Wait until Slurm has put a job back into the queue, and spare it the two minutes that requeued jobs wait."""
    wait_until(lambda: slurm_state(element_id) == "PENDING", what=f"{element_id} is requeued")
    # Not at once: slurmd refuses a job whose credential it revoked in the same second.
    time.sleep(2.5)
    run_command(["scontrol", "update", f"JobId={element_id}", "StartTime=now"])


def slurm_state(element_id: str) -> str:
    """Return Slurm's word for one job, or nothing when it has forgotten it."""
    rows = run_command(["squeue", "--states=all", "--noheader", "-r", "--format=%i %T"]).splitlines()
    return next((row.split()[1] for row in rows if row.split()[0] == element_id), "")


def preempt(*, hold_s: int = 1) -> str:
    """Let a job of the partition `high` take both nodes for a moment; return its id."""
    command = ["sbatch", "--parsable", "--partition=high", "--nodes=2", "--exclusive", "--output=/dev/null"]
    return run_command([*command, f"--wrap=sleep {hold_s}"]).strip()


def processes_of(save_dir: Path) -> dict[int, str]:
    """Return the command lines of all processes that work for a save directory: srun, supervisors, launchers, workers."""
    wanted = str(save_dir).encode()
    found: dict[int, str] = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        with contextlib.suppress(OSError):
            words = (entry / "cmdline").read_bytes()
            # A process that waits to be reaped has neither.
            if words and wanted in words + (entry / "environ").read_bytes():
                found[int(entry.name)] = words.replace(b"\0", b" ").decode(errors="replace")
    return found


def find_process(save_dir: Path, module: str, **variables: str) -> int:
    """Return the id of the one process that runs a module for a save directory.

    Args:
        save_dir: whose processes.
        module: `hpcbench.job` (its supervisor) or `hpcbench.worker`.
        variables: `experiment` names the job; `rank` is a worker's RANK.
    """
    found = []
    for pid, words in processes_of(save_dir).items():
        if f" -m {module} " not in words or words.startswith("srun") or "torch.distributed" in words:
            continue
        try:
            environ = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
        except OSError:
            continue  # it has just ended
        if "rank" in variables and f"RANK={variables['rank']}".encode() not in environ:
            continue
        index = _index_of(save_dir, variables.get("experiment"))
        if index is None or f"SLURM_ARRAY_TASK_ID={index}".encode() in environ:
            found.append(pid)
    assert len(found) == 1, processes_of(save_dir)
    return found[0]


def _index_of(save_dir: Path, experiment: str | None) -> str | None:
    return None if experiment is None else scheduler_id(save_dir, experiment).partition("_")[2]


def assert_no_orphans(save_dir: Path) -> None:
    """Check that no process of these jobs is left."""
    with contextlib.suppress(AssertionError):
        wait_until(lambda: not processes_of(save_dir), what="no process is left")
    left = processes_of(save_dir)
    assert not left, left


@contextlib.contextmanager
def shims(folder: Path, **scripts: str) -> Iterator[Path]:
    """Write shell scripts, named after the programs that they stand in front of, into a folder for PATH."""
    target = folder / "shims"
    target.mkdir(exist_ok=True)
    for name, text in scripts.items():
        (target / name).write_text(f"#!/bin/sh\n{text}\n", encoding="utf-8")
        (target / name).chmod(0o755)
    yield target
