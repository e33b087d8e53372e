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
    """Return the jobs of all experiments: each one's main job first, then its evals, in the suite's order.

    A job is after the one whose model it takes: its experiment's main job, or that of the experiment `ckpt_from`.
    """
    paths = SuitePaths(save_dir, suite.name)
    mains: dict[str, JobRequest] = {}
    jobs: list[JobRequest] = []
    for experiment in suite.experiments:
        parent = None if experiment.ckpt_from is None else mains[experiment.ckpt_from]
        planned = _plan_experiment(experiment, suite, paths, inputs, parent)
        if main_job(experiment.cmd) is not None:
            mains[experiment.name] = planned[0]
        jobs += planned
    return tuple(jobs)


def _plan_experiment(
    experiment: Experiment, suite: Suite, paths: SuitePaths, inputs: Inputs, parent: JobRequest | None
) -> list[JobRequest]:
    common: dict[str, Any] = {
        "suite": suite.name,
        "experiment": experiment.name,
        "device": experiment.device,
        "env": dict(experiment.env),
        "args": experiment.args,
        "command": experiment.command,
        "repeat": experiment.repeat,
        "base_experiment": experiment.base_experiment,
        "info": dict(experiment.info),
        "max_attempts": experiment.max_attempts,
        "suite_file": str(suite.file),
        "source_of": dict(experiment.source_of),
    }
    jobs: list[JobRequest] = []
    if (job := main_job(experiment.cmd)) is not None:
        draft = JobRequest(
            job=job,
            cmd=experiment.cmd,
            resources=experiment.requirements,
            fingerprint="",
            export=experiment.export,
            infer=experiment.infer,
            framework=experiment.framework,
            framework_args=experiment.framework_args,
            **_model_of(parent, paths),
            **common,
        )
        parent = _sign(draft, inputs)
        jobs.append(parent)
    for dataset in experiment.eval_dataset:
        draft = JobRequest(
            job=eval_job_name(dataset),
            cmd="eval",
            resources=experiment.eval_requirements,
            fingerprint="",
            eval_dataset=dataset,
            eval_args=experiment.eval_args.get(dataset, EvalArgs()),
            **_model_of(parent, paths),
            **common,
        )
        jobs.append(_sign(draft, inputs))
    return jobs


def _model_of(parent: JobRequest | None, paths: SuitePaths) -> dict[str, str]:
    """Return what a request says of the job whose model it takes."""
    if parent is None:
        return {}
    return {"train_folder": str(paths.job(*parent.ref).folder), "train_fingerprint": parent.fingerprint}


def _sign(draft: JobRequest, inputs: Inputs) -> JobRequest:
    """Return the request with its fingerprint and the hashes of the inputs that are in it."""
    own = {path: inputs[path] for path in sorted(input_paths(draft)) if path in inputs}
    return draft.model_copy(update={"fingerprint": fingerprint(draft, inputs), "inputs": own})
