"""Requests, suites and views that unit tests of the login-node path share. Values only."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hpcbench.job.context import JobContext, read_context
from hpcbench.schemas.arguments import CommandArgs, EvalArgs, SftArgs
from hpcbench.schemas.collection import JobView
from hpcbench.schemas.record import Record
from hpcbench.schemas.request import JobRequest, Resources
from hpcbench.schemas.states import JobState
from hpcbench.schemas.submission import Element, Submission, write_submission
from hpcbench.schemas.suite import Experiment, Suite
from hpcbench.storage.paths import SuitePaths

CPU = Resources(gpu=0, cpus=1)


def experiment(name: str, **changes: Any) -> Experiment:
    """Return a lora experiment with one eval, changed as asked."""
    values: dict[str, Any] = {
        "suite": "tuners",
        "name": name,
        "cmd": "sft",
        "device": "cuda",
        "requirements": Resources(gpu=1, ddp=1),
        "eval_requirements": Resources(gpu=1),
        "eval_dataset": ("gsm8k",),
        "eval_args": {"gsm8k": EvalArgs(num_fewshot=5)},
        "args": SftArgs(model_type="qwen-7b-chat", dataset=("ms-agent",)),
    }
    return Experiment(**(values | changes))


def suite(*experiments: Experiment) -> Suite:
    return Suite(name="tuners", file=Path("/suites/tuners.yaml"), experiments=experiments)


def command(name: str, *, evals: tuple[str, ...] = ()) -> Experiment:
    return experiment(
        name,
        cmd="command",
        requirements=CPU,
        eval_requirements=CPU,
        args=None,
        command=CommandArgs(command=("true",)),
        eval_dataset=evals,
        eval_args={dataset: EvalArgs(command=("true",)) for dataset in evals},
    )


def view(request: JobRequest, state: JobState, **changes: Any) -> JobView:
    values: dict[str, Any] = {
        "suite": request.suite,
        "experiment": request.experiment,
        "job": request.job,
        "state": state,
        "folder": Path("/logs") / request.suite / request.experiment / request.job,
        "request": request,
        "parent": request.parent,
    }
    return JobView(**(values | changes))


def record(state: JobState = JobState.COMPLETED, **changes: Any) -> Record:
    values: dict[str, Any] = {
        "hpcbench_version": "0.1.0",
        "suite": "tuners",
        "experiment": "lora",
        "job": "train",
        "cmd": "sft",
        "state": state,
        "fingerprint": "f" * 64,
        "started_at": "2026-11-21T00:00:00.000Z",
        "finished_at": "2026-11-21T00:01:00.000Z",
    }
    return Record.model_validate(values | changes)


def submission(**changes: Any) -> Submission:
    values: dict[str, Any] = {
        "key": "tuners-train-261121000000-0011aabb",
        "suite": "tuners",
        "cluster": "slurm",
        "created_at": "2026-11-21T00:00:00.000000Z",
        "resources": Resources(gpu=2, ddp=2, time_min=90, mem_gb=16),
        "elements": {
            index: Element(experiment=f"e{index}", job="train", fingerprint="f" * 64) for index in (0, 1, 2, 7)
        },
    }
    return Submission.model_validate(values | changes)


def array_job(save_dir: Path) -> JobContext:
    """Return what element 3 of array 98 knows of itself."""
    suite_paths = SuitePaths(save_dir, "tuners")
    mine = submission(elements={3: Element(experiment="a", job="train", fingerprint="f" * 64)})
    write_submission(suite_paths, mine)
    environ = {"SLURM_JOB_ID": "99", "SLURM_ARRAY_JOB_ID": "98", "SLURM_ARRAY_TASK_ID": "3", "SLURM_NODEID": "0"}
    return read_context(suite_paths.submission(mine.key), None, environ)
