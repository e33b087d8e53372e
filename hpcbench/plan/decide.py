"""What a submit does with each job, given what is known of it. Pure: no disk, no scheduler, no clock."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType

from hpcbench.invocation import command
from hpcbench.plan.fingerprint import describe_change
from hpcbench.schemas.collection import JobView
from hpcbench.schemas.record import TrainMetrics
from hpcbench.schemas.request import TRAIN, JobRef, JobRequest, Resources
from hpcbench.schemas.states import ALIVE, FAILED_STATES, FINISHED_WELL, JobState

CHECKPOINT_GONE = "its train job's checkpoint is gone (`keep`, or hpcbench clean): --force trains again"


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What the user asked of a submit."""

    retry: frozenset[JobState] = frozenset()
    """States that are run again."""
    force: bool = False
    """Run changed experiments, keeping old records under their fingerprints."""
    only: tuple[str, ...] = ()
    """Globs over experiment names; empty is all."""
    retry_jobs: frozenset[JobRef] = frozenset()
    """The (experiment, job) pairs that `retry` is for; empty is all."""
    resources: Mapping[JobRef, Resources] = field(default_factory=dict)
    """What (experiment, job) pairs ask for instead of what the suite says; never a part of the fingerprint."""

    def is_retried(self, view: JobView) -> bool:
        """Return whether a job in this state is run again."""
        named = not self.retry_jobs or view.ref in self.retry_jobs
        return named and view.state in self.retry


def decide(
    requests: Sequence[JobRequest],
    views: Mapping[JobRef, JobView],
    options: Options,
    *,
    cluster: str,
    no_checkpoint: Mapping[JobRef, str] = MappingProxyType({}),
) -> list[Decision]:
    """Decide what happens to each job, given what is known of it; jobs are keyed by (experiment, job).

    In `requests` each train is before its evals; a view's `request` is the one on disk and its `state` belongs to that.
    A job can wait only for one on the same cluster. `no_checkpoint`: evals whose
    completed train job has no checkpoint for them, and why.
    """
    trained_again = {
        request.experiment
        for request in requests
        if no_checkpoint.get(request.ref) == CHECKPOINT_GONE
        and _decide_alone(request, views.get(request.ref), options).action is Action.SUBMIT
    }
    decisions: list[Decision] = []
    trains: dict[str, Decision] = {}
    for request in requests:
        view = views.get(request.ref)
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
            if runs and request.ref in no_checkpoint:
                decision = Decision(request=request, action=Action.CHANGED, why=no_checkpoint[request.ref])
        decisions.append(decision)
    return decisions


def _spare_running_evals(
    decision: Decision, train: JobView, requests: Sequence[JobRequest], views: Mapping[JobRef, JobView]
) -> Decision:
    """Keep a completed train job as it is while one of its evals still needs its checkpoints."""
    if train.state is not JobState.COMPLETED:
        return decision
    for request in requests:
        view = views.get(request.ref) if request.experiment == train.experiment else None
        if view is not None and view.job != TRAIN and view.state in ALIVE:
            why = f"its {view.job} is {view.state} and needs its checkpoint: cancel that first"
            return Decision(request=decision.request, action=Action.CHANGED, why=why)
    return decision


def _decide_alone(  # noqa: PLR0911  # one rule a return
    request: JobRequest, view: JobView | None, options: Options
) -> Decision:
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
    hint = command("retry", f"{request.suite}/{request.experiment}") if view.state in FAILED_STATES else ""
    return Decision(request=request, action=Action.SKIP, why=f"is {view.state}{': ' + hint if hint else ''}")


def _under_way(view: JobView) -> str:
    if view.state is not JobState.UNKNOWN:
        return f"already {view.state}"
    way_out = "; --retry unknown runs it here all the same" if view.is_out_of_reach else ""
    return f"is unknown: {view.reason}{way_out}"


def _note_push(request: JobRequest, view: JobView) -> str:
    """Return an addition to the reason of a finished training that was to be pushed: pushes come at its end alone."""
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
