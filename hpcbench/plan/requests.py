"""From a suite to job requests with fingerprints: which jobs an experiment needs and what each is asked (pure)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hpcbench.plan.fingerprint import Inputs, fingerprint, input_paths
from hpcbench.schemas.arguments import EvalArgs
from hpcbench.schemas.request import JobRequest, eval_job_name, main_job
from hpcbench.schemas.suite import Experiment, Suite
from hpcbench.storage.paths import SuitePaths


def plan_suite(suite: Suite, *, save_dir: Path, inputs: Inputs) -> tuple[JobRequest, ...]:
    """Return the jobs of all experiments: each one's train first, then its evals, in file order."""
    paths = SuitePaths(save_dir, suite.name)
    return tuple(
        request for experiment in suite.experiments for request in _plan_experiment(experiment, suite, paths, inputs)
    )


def _plan_experiment(experiment: Experiment, suite: Suite, paths: SuitePaths, inputs: Inputs) -> list[JobRequest]:
    common: dict[str, Any] = {
        "suite": suite.name,
        "experiment": experiment.name,
        "device": experiment.device,
        "env": dict(experiment.env),
        "args": experiment.args,
        "command": experiment.command,
        "export": experiment.export,
        "infer": experiment.infer,
        "repeat": experiment.repeat,
        "base_experiment": experiment.base_experiment,
        "info": dict(experiment.info),
        "max_attempts": experiment.max_attempts,
        "suite_file": str(suite.file),
        "source_of": dict(experiment.source_of),
    }
    jobs: list[JobRequest] = []
    train: JobRequest | None = None
    if (job := main_job(experiment.cmd)) is not None:
        draft = JobRequest(job=job, cmd=experiment.cmd, resources=experiment.requirements, fingerprint="", **common)
        train = _sign(draft, inputs)
        jobs.append(train)
    for dataset in experiment.eval_dataset:
        draft = JobRequest(
            job=eval_job_name(dataset),
            cmd="eval",
            resources=experiment.eval_requirements,
            fingerprint="",
            eval_dataset=dataset,
            eval_args=experiment.eval_args.get(dataset, EvalArgs()),
            train_folder=None if train is None else str(paths.job(experiment.name, train.job).folder),
            train_fingerprint=None if train is None else train.fingerprint,
            **common,
        )
        jobs.append(_sign(draft, inputs))
    return jobs


def _sign(draft: JobRequest, inputs: Inputs) -> JobRequest:
    """Return the request with its fingerprint and the hashes of the inputs that are in it."""
    own = {path: inputs[path] for path in sorted(input_paths(draft)) if path in inputs}
    return draft.model_copy(update={"fingerprint": fingerprint(draft, inputs), "inputs": own})
