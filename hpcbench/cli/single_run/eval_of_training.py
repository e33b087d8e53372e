"""An evaluation of a training that ran here: `hpcbench eval --ckpt_dir` adds it to the training's own experiment.

It reads the requests of that experiment's jobs; checkpoints are looked for by the evaluation itself.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path

from hpcbench.cli.single_run.command_line import CKPT_DIR, Typed
from hpcbench.cli.single_run.options import options_of
from hpcbench.errors import ConfigError, PlanError, Problem
from hpcbench.schemas.arguments import EvalArgs
from hpcbench.schemas.request import EVAL_PREFIX, TRAIN, JobRequest, eval_job_name, read_request
from hpcbench.schemas.suite import Experiment, Suite
from hpcbench.schemas.suite_folder import read_suite
from hpcbench.storage.paths import JobPaths, SuitePaths, job_folders

_CHOICES = ("best", "last")
_NEVER_BESIDE = ("name", "output_dir")


@dataclass(frozen=True, slots=True, kw_only=True)
class Training:
    """A training on disk."""

    root: Path
    """The save directory that it lies in."""
    request: JobRequest
    choice: str | None
    """best or last, where the folder was that checkpoint's."""


def find_training(typed: Typed) -> Training:
    """Return the training that `--ckpt_dir` names: a checkpoint's folder, its job's or its experiment's.

    Raises:
        ConfigError: the folder is none of a training, or something is typed that the training has decided already.
        PlanError: the training belongs to a suite of its user's.
        RecordError: its request cannot be read.
    """
    value = typed.values[CKPT_DIR]
    folder = Path(os.path.expanduser(str(value.value))).absolute()  # noqa: PTH111  # Path.expanduser raises
    job = next((job for job in _candidates(folder) if job.request.is_file()), None)
    if job is None:
        expected = "<output_dir>/<model>/<name>/train/checkpoints/best, or last"
        hint = f"looked in {folder}" if folder.is_dir() else f"no such folder: {folder}"
        raise ConfigError([value.problem("no training of hpcbench", expected=expected, hint=hint)])
    request = read_request(job.request)
    problems = _contradictions(typed, request)
    if problems:
        raise ConfigError(problems)
    root = job.folder.parents[2]
    known = read_suite(SuitePaths(root, job.folder.parents[1].name))
    file = "" if known is None else known.plan.suite_file
    if file != str(root / f"{request.suite}.yaml"):
        hint = "add the evaluation to its `eval_dataset` and submit it again: nothing is trained twice"
        raise PlanError(f"{folder}: was trained by the suite {file or request.suite}", hint=hint)
    choice = folder.name if folder.name in _CHOICES and folder != job.folder else None
    return Training(root=root, request=request, choice=choice)


def suite_with_evals(training: Training, typed: Experiment) -> Suite:
    """Return the training's suite, its experiment with the typed evaluations beside those that it had."""
    request, root = training.request, training.root
    evals = {**_evals_on_disk(SuitePaths(root, request.suite).folder / request.experiment), **typed.eval_args}
    if training.choice is not None:
        evals |= {name: evals[name].model_copy(update={"checkpoint": training.choice}) for name in typed.eval_dataset}
    experiment = replace(
        typed,
        suite=request.suite,
        name=request.experiment,
        cmd=request.cmd,
        device=request.device,
        requirements=request.resources,
        eval_dataset=tuple(evals),
        eval_args=evals,
        args=request.args,
        env=request.env,
        info=request.info,
        max_attempts=request.max_attempts,
        source_of=request.source_of,
    )
    return Suite(name=request.suite, file=root / f"{request.suite}.yaml", experiments=(experiment,), grows=True)


def eval_jobs(typed: Experiment) -> frozenset[str]:
    """Return the names of the jobs that were asked for."""
    return frozenset(eval_job_name(name) for name in typed.eval_dataset)


def _candidates(folder: Path) -> list[JobPaths]:
    return [JobPaths(place) for place in (folder / TRAIN, folder, *folder.parents[:2]) if place.name == TRAIN]


def _contradictions(typed: Typed, request: JobRequest) -> list[Problem]:
    options = options_of(typed.verb.name)
    problems = []
    for name, value in typed.values.items():
        option = options.get(name)
        if option is None or option.section == "args" or name in _NEVER_BESIDE:
            problems.append(value.problem("is the training's own with --ckpt_dir", hint="leave it out"))
        elif name == "device" and value.value != request.device:
            problems.append(value.problem(f"the training ran on {request.device}", hint="leave it out"))
        elif name == "eval_checkpoint":
            problems.append(value.problem("is said by --ckpt_dir", hint="name the folder best or last there"))
    return problems


def _evals_on_disk(folder: Path) -> dict[str, EvalArgs]:
    requests = [read_request(job.request) for job in job_folders(folder, EVAL_PREFIX)]
    return {request.eval_dataset: request.eval_args or EvalArgs() for request in requests if request.eval_dataset}
