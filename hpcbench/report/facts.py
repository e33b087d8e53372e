"""What a report may show of one experiment; figures of a job that did not complete are never taken for results."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from pydantic import ValidationError

from hpcbench.report.escape import one_line
from hpcbench.schemas.arguments import ExportArgs, SftArgs
from hpcbench.schemas.collection import ExperimentView, JobView
from hpcbench.schemas.metrics import (
    CommandMetrics,
    EvalMetrics,
    ExportMetrics,
    InferMetrics,
    Metrics,
    TaskResult,
    TrainMetrics,
)
from hpcbench.schemas.progress import progress_text
from hpcbench.schemas.record import Cause, Record
from hpcbench.schemas.request import TRAININGS, JobRequest
from hpcbench.schemas.states import FAILED_STATES, FINISHED_WELL, JobState

CAUSE_LIMIT = 60
SEE_TASKS = "see its tasks"
"""Cell of an eval whose figures are in a table of its tasks."""
_FOLDERS = re.compile(r"(?<![^\s'\"(=])/(?:[^\s/:'\"]+/)+(?=[^\s/])")
_STATES_BY_URGENCY = (
    JobState.RUNNING,
    JobState.PENDING,
    JobState.UNKNOWN,
    JobState.PLANNED,
    *sorted(FAILED_STATES),
    JobState.BLOCKED,
    JobState.OUT_OF_MEMORY,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """The headline figure of one eval dataset, or of one of its tasks."""

    metric: str
    """lm-eval's name without the filter `none`, for example `exact_match` or `exact_match,strict-match`."""
    lm_eval_key: str
    """lm-eval's name with its filter, as samples have it."""
    version: str | None = None
    """The task's, as its author counts."""
    value: float
    stderr: float | None
    higher_is_better: bool
    num_samples: int
    num_fewshot: int | None
    debug: bool
    num_prompts_cut: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class EvalFacts:
    """One eval job of an experiment."""

    dataset: str
    job: JobView
    metrics: EvalMetrics | None
    score: Score | None
    tasks: Mapping[str, Score]
    """Of a group for which lm-eval defines no score, or whose score none of its tasks has: each task's; else empty."""


@dataclass(frozen=True, kw_only=True)
class Facts:
    """One experiment, ready to be put into columns."""

    view: ExperimentView
    state: JobState
    args: SftArgs | None
    train: TrainMetrics | None
    command: CommandMetrics | None
    infer: InferMetrics | None
    export: ExportMetrics | None
    evals: Mapping[str, EvalFacts]
    values: dict[object, float | str | None] = field(default_factory=dict, compare=False, repr=False)
    """Values of columns that were read before, by what read them."""

    @property
    def train_args(self) -> SftArgs | None:
        """The arguments where they took part in a training; a baseline's learning rate means nothing."""
        return self.args if self.view.cmd in TRAININGS else None

    @cached_property
    def raw_args(self) -> Mapping[str, Any]:
        """The arguments as the request has them, also those that `SftArgs` does not have."""
        return raw_args_of(self.view)

    @cached_property
    def request(self) -> JobRequest | None:
        """The request of its main job, or of its first eval where it has none."""
        return next((job.request for job in self.view.jobs if job.request is not None), None)

    @property
    def repeat(self) -> int | None:
        """Number of the repetition (from 0), None of an experiment that is not repeated."""
        return None if self.request is None else self.request.repeat

    @cached_property
    def records(self) -> tuple[Record, ...]:
        """All records of the experiment, whatever their outcome."""
        return tuple(job.record for job in self.view.jobs if job.record is not None)

    @property
    def main_record(self) -> Record | None:
        """The training's record, else the first eval's."""
        return next(iter(self.records), None)


def facts_of(view: ExperimentView) -> Facts:
    """Collect the facts of one experiment."""
    metrics = None if view.main is None else completed_metrics(view.main)
    evals = [_eval_facts(job) for job in view.evals]
    return Facts(
        view=view,
        state=experiment_state(view),
        args=_args(view),
        train=metrics if isinstance(metrics, TrainMetrics) else None,
        command=metrics if isinstance(metrics, CommandMetrics) else None,
        infer=metrics if isinstance(metrics, InferMetrics) else None,
        export=metrics if isinstance(metrics, ExportMetrics) else None,
        evals={facts.dataset: facts for facts in evals},
    )


def completed_metrics(job: JobView) -> Metrics | None:
    """Return what a job measured if it completed, else None."""
    if job.state is not JobState.COMPLETED or job.record is None:
        return None
    return job.record.metrics


def experiment_state(view: ExperimentView) -> JobState:
    """Return one state for the experiment: its train's, or the most urgent one of its evals (moving before failed)."""
    if view.main is not None and view.main.state is not JobState.COMPLETED:
        return view.main.state
    states = {job.state for job in view.jobs}
    if not states:
        return JobState.PLANNED
    return next((state for state in _STATES_BY_URGENCY if state in states), JobState.COMPLETED)


def unfinished_eval(facts: Facts, dataset: str) -> str | None:
    """Return the state of the eval of a dataset until it has completed, else None."""
    found = facts.evals.get(dataset)
    return None if found is None or found.job.state is JobState.COMPLETED else found.job.state.value


def unscored_eval(facts: Facts, dataset: str) -> str | None:
    """Return what stands in the place of a score that a completed eval does not have, else None."""
    found = facts.evals.get(dataset)
    return SEE_TASKS if found is not None and found.score is None and found.tasks else None


def job_cause(job: JobView) -> Cause | None:
    """Return why the job's record says it did not complete, if it says so."""
    return None if job.record is None or job.state is JobState.COMPLETED else job.record.cause


def cause_text(job: JobView) -> str:
    """Return one line that says why the job is in its state, or an empty text."""
    cause = job_cause(job)
    return one_line(job.reason or ("" if cause is None else cause.message))


def state_text(facts: Facts) -> str:
    """Return the state of an experiment in words, naming the job where it is not the training."""
    view = facts.view
    if view.main is not None and view.main.state is not JobState.COMPLETED:
        return job_state_text(view.main)
    unfinished = [job for job in view.evals if job.state not in FINISHED_WELL]
    if not unfinished:
        return facts.state.value
    if len(unfinished) == len(view.evals) and len({job.state for job in unfinished}) == 1 and view.main is None:
        return job_state_text(unfinished[0])
    return "; ".join(f"{one_line(job.job)} {job_state_text(job)}" for job in unfinished)


def job_state_text(job: JobView) -> str:
    """Return `state`, or `state: why`, with how far a running job is."""
    detail = progress_text(job.progress, brief=True) if job.state is JobState.RUNNING else cause_text(job)
    if job.state is JobState.OUT_OF_MEMORY:
        detail = ""  # torch's message says no more than the state does; the failures section has it
    # Of a path only the end tells something in so little room; the failures section has all of it.
    detail = one_line(_FOLDERS.sub("", detail), limit=CAUSE_LIMIT)
    return f"{job.state.value}: {detail}" if detail else job.state.value


def gpu_names(record: Record) -> tuple[str, ...]:
    """Return the names of the GPUs that a job ran on, as its environment lists them."""
    gpus = record.environment.get("gpus")
    names = gpus.get("names") if isinstance(gpus, Mapping) else gpus
    return tuple(name for name in names if isinstance(name, str)) if isinstance(names, (list, tuple)) else ()


def processor(record: Record) -> str | None:
    """Return the processor of a job's host, or the host where its processor is not known."""
    cpu = record.environment.get("cpu")
    return cpu if isinstance(cpu, str) else host_name(record)


def host_name(record: Record) -> str | None:
    """Return the host of a job's last attempt."""
    host = record.environment.get("host")
    if isinstance(host, str):
        return host
    return record.attempts[-1].host if record.attempts else None


def hardware(job: JobView) -> tuple[object, ...]:
    """Return what decides a job's speed besides its arguments: GPUs by name and number, else the processor or host."""
    record, request = job.record, job.request
    resources = () if request is None else (request.resources.gpu, request.resources.ddp, request.resources.nodes)
    if record is None:
        return resources
    return (*(gpu_names(record) or (processor(record),)), *resources)


def raw_args_of(view: ExperimentView) -> Mapping[str, Any]:
    """Return the arguments as the request has them; of ten thousand experiments to keep them takes 90 MB."""
    for job in view.jobs:
        if job.request is not None and job.request.args is not None:
            return {**job.request.args.model_dump(), **_quantization_args(job.request.export)}
        args = None if job.record is None else job.record.request.get("args")
        if isinstance(args, Mapping):
            return args
    return {}


def _quantization_args(export: ExportArgs | None) -> dict[str, Any]:
    """Return an export's own arguments; what it does not use is null."""
    if export is None:
        return {}
    unused = {} if export.quant_bits else {"quant_method": None, "quant_bits": None}
    return {**export.model_dump(), **unused, **({} if export.calibrates else {"dataset": None})}


def _args(view: ExperimentView) -> SftArgs | None:
    for job in view.jobs:
        if job.request is not None and job.request.args is not None:
            return job.request.args
    raw_args = raw_args_of(view)
    try:
        return SftArgs.model_validate({key: value for key, value in raw_args.items() if key in SftArgs.model_fields})
    except ValidationError:
        return None


def _eval_facts(job: JobView) -> EvalFacts:
    metrics = completed_metrics(job)
    found = metrics if isinstance(metrics, EvalMetrics) else None
    named = job.request.eval_dataset if job.request is not None else None
    dataset = named or (found.dataset if found is not None else job.job.removeprefix("eval-"))
    score = None if found is None else _headline_score(found)
    return EvalFacts(dataset=dataset, job=job, metrics=found, score=score, tasks=_task_scores(found, score))


def _headline_score(metrics: EvalMetrics) -> Score | None:
    task = metrics.tasks.get(metrics.primary_task)
    if task is None or metrics.primary_metric is None:
        return None
    return _score(task, metrics.primary_metric, debug=metrics.debug)


def _task_scores(metrics: EvalMetrics | None, score: Score | None) -> dict[str, Score]:
    if metrics is None or (score is not None and not metrics.mean_over_documents):
        return {}
    found = {
        name: _score(task, task.primary_metric, debug=metrics.debug)
        for name, task in metrics.tasks.items()
        if task.primary_metric is not None and name != metrics.primary_task
    }
    return {name: own for name, own in found.items() if own is not None}


def _score(task: TaskResult, key: str, *, debug: bool) -> Score | None:
    value = task.metrics.get(key)
    if not isinstance(value, (int, float)):
        return None
    name, _, kind = key.partition(",")
    stderr = task.metrics.get(f"{name}_stderr,{kind}" if kind else f"{name}_stderr")
    return Score(
        metric=name if kind in {"", "none"} else key,
        lm_eval_key=key,
        version=task.version,
        value=float(value),
        stderr=float(stderr) if isinstance(stderr, (int, float)) else None,
        higher_is_better=task.higher_is_better.get(key, task.higher_is_better.get(name, True)),
        num_samples=task.num_samples,
        num_fewshot=task.num_fewshot,
        debug=debug,
        num_prompts_cut=task.num_prompts_cut,
    )
