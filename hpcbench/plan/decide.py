"""From a suite to jobs: which jobs an experiment needs, what each is asked, and what identifies its result.

In: a suite and the hashes of the local files that it names. Out: job requests and, given what is known of each job,
what a submit does with it. Pure: no disk, no scheduler, no clock.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

from hpcbench.catalog.datasets import REGISTRY_MARK
from hpcbench.hub.repository import HUB_ARGUMENTS
from hpcbench.schemas.arguments import EvalArgs
from hpcbench.schemas.record import TrainMetrics
from hpcbench.schemas.request import JobRequest, Resources
from hpcbench.schemas.states import ALIVE, FAILED_STATES, FINISHED_WELL, JobState
from hpcbench.schemas.suite import Experiment, Suite
from hpcbench.schemas.views import JobView
from hpcbench.storage.paths import SuitePaths

TRAIN = "train"
EVAL_PREFIX = "eval-"
SHOWN_CHANGES = 3
CHECKPOINT_GONE = "its train job's checkpoint is gone (`keep`, or hpcbench clean): --force trains again"

Inputs = Mapping[str, str]
"""Absolute path of a local file or folder -> hash of what decides results in it."""


class Action(StrEnum):
    """What a submit does with one job."""

    SUBMIT = "submit"
    SKIP = "skip"
    WAIT = "wait"
    CHANGED = "changed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """One job of the plan, what happens to it and why."""

    request: JobRequest
    action: Action
    why: str
    after_train: bool = False
    """Waits for its train job, which goes out with it or is under way."""

    @property
    def name(self) -> str:
        """`experiment job`, as tables show it."""
        return f"{self.request.experiment} {self.request.job}"


def eval_job_name(dataset: str) -> str:
    """Return the job name of one eval dataset."""
    return f"{EVAL_PREFIX}{dataset}"


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
        "repeat": experiment.repeat,
        "base_experiment": experiment.base_experiment,
        "info": dict(experiment.info),
        "max_attempts": experiment.max_attempts,
        "suite_file": str(suite.file),
        "source_of": dict(experiment.source_of),
    }
    jobs: list[JobRequest] = []
    train: JobRequest | None = None
    if experiment.cmd != "eval":
        draft = JobRequest(job=TRAIN, cmd=experiment.cmd, resources=experiment.requirements, fingerprint="", **common)
        train = draft.model_copy(update={"fingerprint": fingerprint(draft, inputs)})
        jobs.append(train)
    for dataset in experiment.eval_dataset:
        draft = JobRequest(
            job=eval_job_name(dataset),
            cmd="eval",
            resources=experiment.eval_requirements,
            fingerprint="",
            eval_dataset=dataset,
            eval_args=experiment.eval_args.get(dataset, EvalArgs()),
            train_folder=None if train is None else str(paths.job(experiment.name, TRAIN).folder),
            train_fingerprint=None if train is None else train.fingerprint,
            **common,
        )
        jobs.append(draft.model_copy(update={"fingerprint": fingerprint(draft, inputs)}))
    return jobs


# Names, places and times do not decide a result; neither do limits of the scheduler.
NOT_IN_FINGERPRINT = {
    "schema_version",
    "suite",
    "experiment",
    "fingerprint",
    "train_folder",
    "repeat",
    "base_experiment",
    "max_attempts",
    "info",
    "suite_file",
    "source_of",
    "resources",
}
PATHS_IN_ARGS = ("model_id_or_path", "dataset", "val_dataset", "train_dataset_mix_ds", "dataset_info")
RESOURCES_IN_FINGERPRINT = ("gpu", "ddp", "nodes", "gpu_type")
ARGS_OF_A_BASELINE = (
    "model_type",
    "model_id_or_path",
    "template_type",
    "system",
    "dtype",
    "use_flash_attn",
    "trust_remote_code",
)
"""The training arguments that an untrained baseline depends on; changing a learning rate does not rerun it."""
QUANTIZATION_ARGS = ("quantization_bit", "bnb_4bit_comp_dtype", "bnb_4bit_quant_type", "bnb_4bit_use_double_quant")
"""Those that it depends on too where its weights are quantised."""


def fingerprint(request: JobRequest, inputs: Inputs) -> str:
    """Return the SHA-256 (hex) of everything that decides the job's result.

    In it: cmd, resolved arguments, env, gpu, ddp, nodes, gpu_type, hashes of local data, task files and model config;
    an eval's also its train's fingerprint. Not in it: names, partition, time, memory, hpcbench's version.
    """
    return _digest(fingerprint_parts(request, inputs))


def fingerprint_parts(request: JobRequest, inputs: Inputs) -> dict[str, Any]:
    """Return what goes into the fingerprint, as plain values, so that two of them can be compared in words."""
    parts = request.model_dump(mode="json", exclude=NOT_IN_FINGERPRINT)
    resources = request.resources.model_dump(mode="json")
    parts["resources"] = {name: resources[name] for name in RESOURCES_IN_FINGERPRINT}
    if request.cmd == "eval" and request.train_fingerprint is not None:
        # The train's fingerprint covers these already.
        parts["command"] = parts["args"] = None
    elif request.cmd == "eval" and isinstance(parts["args"], dict) and not _needs_datasets(request):
        quantized = QUANTIZATION_ARGS if parts["args"]["quantization_bit"] else ()
        parts["args"] = {name: parts["args"][name] for name in (*ARGS_OF_A_BASELINE, *quantized)}
    if isinstance(parts["args"], dict):
        # Where the weights go once they are there does not change them.
        parts["args"] = {name: value for name, value in parts["args"].items() if name not in HUB_ARGUMENTS}
    # The same content at another place is the same input.
    parts["inputs"] = sorted(inputs[path] for path in input_paths(request) if path in inputs)
    return _without_places(parts)


def input_paths(request: JobRequest) -> set[str]:
    """Return the absolute local paths that the request names."""
    args, eval_args = request.args, request.eval_args
    names: list[str] = []
    if args is not None:
        names.append(args.model_id_or_path or "")
    if args is not None and _needs_datasets(request):
        mixed = args.train_dataset_mix_ds if args.train_dataset_mix_ratio > 0 else ()
        for name in (*args.dataset, *args.val_dataset, *mixed):
            is_registered = args.dataset_info is not None and not name.startswith("/")
            names.append(f"{args.dataset_info}{REGISTRY_MARK}{name}" if is_registered else name)
    if eval_args is not None:
        names += eval_args.include_path
    return {name for name in names if name.startswith("/")}


def _needs_datasets(request: JobRequest) -> bool:
    """Say whether the job reads training or validation data."""
    return request.cmd != "eval" or (request.eval_args is not None and request.eval_args.eval_loss)


def _without_places(parts: dict[str, Any]) -> dict[str, Any]:
    """Replace absolute input paths by their last part: moving a project folder does not change a result."""

    def short(value: object) -> object:
        if isinstance(value, str) and value.startswith("/"):
            return value.rstrip("/").rsplit("/", 1)[-1]
        return [short(item) for item in value] if isinstance(value, list) else value

    for group, names in (("args", PATHS_IN_ARGS), ("eval_args", ("include_path",))):
        if isinstance(parts.get(group), dict):
            parts[group] = {k: short(v) if k in names else v for k, v in parts[group].items()}
    return parts


def _digest(parts: Mapping[str, Any]) -> str:
    text = json.dumps(parts, sort_keys=True, ensure_ascii=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def describe_change(old: JobRequest, new: JobRequest) -> str:
    """Say which arguments differ between two requests of the same name, for example `args.lora_rank: 8 -> 16`."""
    before, after = _flatten(fingerprint_parts(old, {})), _flatten(fingerprint_parts(new, {}))
    ignored = {"train_fingerprint"}
    names = [name for name in sorted(before.keys() | after.keys()) if before.get(name) != after.get(name)]
    changes = [f"{name}: {before.get(name)} -> {after.get(name)}" for name in names if name not in ignored]
    if not changes:
        return (
            "its train job changed"
            if "train_fingerprint" in names
            else "the content of its data, tasks or model changed"
        )
    more = len(changes) - SHOWN_CHANGES
    return "; ".join(changes[:SHOWN_CHANGES]) + (f"; and {more} more" if more > 0 else "")


def _flatten(value: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, item in value.items():
        if isinstance(item, Mapping):
            flat |= _flatten(item, f"{prefix}{name}.")
        else:
            flat[f"{prefix}{name}"] = item
    return flat


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What the user asked of a submit."""

    retry: frozenset[JobState] = frozenset()
    """States that are run again."""
    force: bool = False
    """Run changed experiments, keeping old records under their fingerprints."""
    only: tuple[str, ...] = ()
    """Globs over experiment names; empty is all."""
    retry_jobs: frozenset[tuple[str, str]] = frozenset()
    """The (experiment, job) pairs that `retry` is for; empty is all."""
    resources: Mapping[tuple[str, str], Resources] = field(default_factory=dict)
    """What (experiment, job) pairs ask for instead of what the suite says; never a part of the fingerprint."""

    def is_retried(self, view: JobView) -> bool:
        """Say whether a job in this state is run again."""
        named = not self.retry_jobs or (view.experiment, view.job) in self.retry_jobs
        return named and view.state in self.retry


def decide(
    requests: Sequence[JobRequest],
    views: Mapping[tuple[str, str], JobView],
    options: Options,
    *,
    cluster: str,
    without_checkpoint: AbstractSet[tuple[str, str]] = frozenset(),
) -> list[Decision]:
    """Decide what happens to each job, given what is known of it.

    Args:
        requests: the plan, each train before its evals.
        views: by (experiment, job); `request` there is the one on disk, `state` belongs to it.
        options: the user's.
        cluster: the scheduler that this goes to; a job can wait only for one that is there too.
        without_checkpoint: evals, by (experiment, job), whose train job is done and has kept no checkpoint for them.
    """
    trained_again = {
        request.experiment
        for request in requests
        if (key := (request.experiment, request.job)) in without_checkpoint
        and _decide_alone(request, views.get(key), options).action is Action.SUBMIT
    }
    decisions: list[Decision] = []
    trains: dict[str, Decision] = {}
    for request in requests:
        view = views.get((request.experiment, request.job))
        if request.train_folder is None:
            decision = _decide_alone(request, view, options)
            if options.force and decision.action is Action.SKIP and request.experiment in trained_again:
                why = "its checkpoint is gone and an eval needs it, --force"
                decision = Decision(request=request, action=Action.SUBMIT, why=why)
            if request.job == TRAIN and decision.action is Action.SUBMIT and view is not None:
                decision = _spare_running_evals(decision, view, requests, views)
            if request.job == TRAIN:
                trains[request.experiment] = decision
        else:
            train_view = views.get((request.experiment, TRAIN))
            decision = _decide_eval(request, view, trains[request.experiment], train_view, options, cluster=cluster)
            runs = decision.action is Action.SUBMIT and not decision.after_train
            if runs and (request.experiment, request.job) in without_checkpoint:
                decision = Decision(request=request, action=Action.CHANGED, why=CHECKPOINT_GONE)
        decisions.append(decision)
    return decisions


def _spare_running_evals(
    decision: Decision, train: JobView, requests: Sequence[JobRequest], views: Mapping[tuple[str, str], JobView]
) -> Decision:
    """Keep a completed train job as it is while one of its evals still needs its checkpoints."""
    if train.state is not JobState.COMPLETED:
        return decision
    for request in requests:
        view = views.get((request.experiment, request.job)) if request.experiment == train.experiment else None
        if view is not None and view.job != TRAIN and view.state in ALIVE:
            why = f"its {view.job} is {view.state} and needs its checkpoint: cancel that first"
            return Decision(request=decision.request, action=Action.CHANGED, why=why)
    return decision


def _decide_alone(  # noqa: PLR0911  # one rule a return
    request: JobRequest, view: JobView | None, options: Options
) -> Decision:
    """Decide on a job that depends on no other."""
    if view is None:
        return Decision(request=request, action=Action.SUBMIT, why="new")
    # A job.json that cannot be read just now does not make a new job.
    known = view.request or view.record
    changed = known is not None and known.fingerprint != request.fingerprint
    what = "its job.json cannot be read" if view.request is None else describe_change(view.request, request)
    if view.state in ALIVE and view.is_out_of_reach and options.is_retried(view):
        return Decision(request=request, action=Action.SUBMIT, why=f"retry: {view.reason}")
    if view.state in ALIVE:
        note = f"; changed since ({what}): cancel it first" if changed else ""
        action = Action.CHANGED if changed else Action.SKIP
        return Decision(request=request, action=action, why=f"{_under_way(view)}{note}")
    if view.state in {JobState.PLANNED, JobState.BLOCKED}:
        return Decision(request=request, action=Action.SUBMIT, why="new" if view.reason == "" else view.reason)
    if changed:
        if options.force:
            return Decision(request=request, action=Action.SUBMIT, why="changed, --force: the old record is kept")
        why = f"changed since it was {view.state} ({what}): rename it, or run with --force"
        return Decision(request=request, action=Action.CHANGED, why=why)
    if options.is_retried(view):
        return Decision(request=request, action=Action.SUBMIT, why=f"retry: was {view.state}")
    if view.state in FINISHED_WELL:
        return Decision(request=request, action=Action.SKIP, why=f"already {view.state}{_note_push(request, view)}")
    hint = f"hpcbench retry {request.experiment}" if view.state in FAILED_STATES else ""
    return Decision(request=request, action=Action.SKIP, why=f"is {view.state}{': ' + hint if hint else ''}")


def _under_way(view: JobView) -> str:
    """Say that a job is under way, or why nobody here can tell."""
    if view.state is not JobState.UNKNOWN:
        return f"already {view.state}"
    way_out = "; --retry unknown runs it here all the same" if view.is_out_of_reach else ""
    return f"is unknown: {view.reason}{way_out}"


def _note_push(request: JobRequest, view: JobView) -> str:
    """Say that a finished training was not pushed although it is to be pushed: that is done once, at its end."""
    metrics = None if view.record is None else view.record.metrics
    if request.args is None or not request.args.push_to_hub or not isinstance(metrics, TrainMetrics):
        return ""
    why = metrics.unknown.get("pushed_to", "push_to_hub was off when it ran")
    return "" if metrics.pushed_to is not None else f"; not pushed to a hub ({why}): retrain with --retry completed"


def _decide_eval(
    request: JobRequest,
    view: JobView | None,
    train: Decision,
    train_view: JobView | None,
    options: Options,
    *,
    cluster: str,
) -> Decision:
    """Decide on an eval of a train job, given what happens to that."""
    if train.action is Action.CHANGED:
        return Decision(request=request, action=Action.CHANGED, why="its train job changed")
    if train.action is Action.SUBMIT:
        if view is not None and view.state in ALIVE:
            return Decision(request=request, action=Action.SKIP, why=_under_way(view))
        return Decision(request=request, action=Action.SUBMIT, why="after its train job", after_train=True)
    state = JobState.PLANNED if train_view is None else train_view.state
    if state is JobState.COMPLETED:
        return _decide_alone(request, view, options)
    if view is not None and view.state in ALIVE:
        return Decision(request=request, action=Action.SKIP, why=_under_way(view))
    is_queued = train_view is not None and train_view.scheduler_id is not None and state is not JobState.UNKNOWN
    is_here = train_view is not None and train_view.cluster == cluster
    if state in ALIVE and is_queued and is_here and (view is None or view.state is JobState.PLANNED):
        # A submit was killed, or a limit met, between the train job and its evals.
        return Decision(
            request=request, action=Action.SUBMIT, why=f"after its train job, which is {state}", after_train=True
        )
    if state in ALIVE:
        where = f" on {train_view.cluster}" if train_view is not None and is_queued and not is_here else ""
        why = f"its train job is still under way{where}; submit again when it is done"
        return Decision(request=request, action=Action.WAIT, why=why)
    return Decision(request=request, action=Action.SKIP, why=f"blocked: its train job is {state}")
