"""What a submit does with each job, given what is known of it. Pure: no disk, no scheduler, no clock."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType

from hpcbench.invocation import command
from hpcbench.plan.fingerprint import describe_change
from hpcbench.schemas.collection import JobView
from hpcbench.schemas.metrics import TrainMetrics
from hpcbench.schemas.request import JobRef, JobRequest, Resources
from hpcbench.schemas.states import ALIVE, FAILED_STATES, FINISHED_WELL, JobState

MODEL_GONE = "the model that it takes is gone (`keep`, or hpcbench clean): --force makes it again"


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
    after_parent: bool = False
    """Waits for the job whose model it takes, which goes out with it or is under way."""

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
    no_model: Mapping[JobRef, str] = MappingProxyType({}),
) -> list[Decision]:
    """Decide what happens to each job, given what is known of it; jobs are keyed by (experiment, job).

    In `requests` a parent, the job whose model another takes, is before its children; one that is not among them was
    not asked for. A view's `request` is the one on disk and its `state` belongs to that. A job can wait only for one
    on the same cluster. `no_model`: jobs whose completed parent has no model for them, and why.
    """
    again = _made_again(requests, views, options, no_model) if options.force else frozenset()
    children: dict[JobRef, list[JobView]] = {}
    for view in views.values():
        if view.parent is not None:
            children.setdefault(view.parent, []).append(view)
    decisions: dict[JobRef, Decision] = {}
    for request in requests:
        known = views.get(request.ref)
        if request.parent is None:
            decision = _decide_alone(request, known, options)
        else:
            parent, above = decisions.get(request.parent), views.get(request.parent)
            decision = _decide_child(request, known, parent, above, options, cluster=cluster)
            runs = decision.action is Action.SUBMIT and not decision.after_parent
            if runs and request.ref in no_model:
                decision = Decision(request=request, action=Action.CHANGED, why=no_model[request.ref])
        if request.ref in again and decision.action is Action.SKIP:
            why = "its model is gone and another job needs it, --force"
            decision = Decision(request=request, action=Action.SUBMIT, why=why)
        if known is not None and decision.action is Action.SUBMIT:
            decision = _spare_running_children(decision, known, children.get(request.ref, ()))
        decisions[request.ref] = decision
    return list(decisions.values())


def _made_again(
    requests: Sequence[JobRequest],
    views: Mapping[JobRef, JobView],
    options: Options,
    no_model: Mapping[JobRef, str],
) -> frozenset[JobRef]:
    """Return the finished jobs whose model is gone and has to be there for another one."""
    again: set[JobRef] = set()
    for request in reversed(requests):
        runs = request.ref in again or _decide_alone(request, views.get(request.ref), options).action is Action.SUBMIT
        if runs and request.parent is not None and no_model.get(request.ref) == MODEL_GONE:
            again.add(request.parent)
    return frozenset(again)


def _spare_running_children(decision: Decision, known: JobView, children: Iterable[JobView]) -> Decision:
    """Keep a completed job as it is while another one still needs its model."""
    if known.state is not JobState.COMPLETED:
        return decision
    for child in children:
        if child.state in ALIVE:
            whose = "its" if child.experiment == known.experiment else f"{child.experiment}'s"
            why = f"{whose} {child.job} is {child.state} and needs its model: cancel that first"
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
    # What helps depends on the cause, which `why` knows.
    hint = command("why", f"{request.suite}/{request.experiment}") if view.state in FAILED_STATES else ""
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


def _decide_child(  # noqa: PLR0911  # one rule a return
    request: JobRequest,
    view: JobView | None,
    parent: Decision | None,
    above: JobView | None,
    options: Options,
    *,
    cluster: str,
) -> Decision:
    """Decide on a job that takes another's model; `parent` is None where that one was not asked for."""
    name = request.parent_name
    if parent is None:
        known = None if above is None else above.request or above.record
        if known is not None and known.fingerprint != request.train_fingerprint:
            return Decision(request=request, action=Action.CHANGED, why=f"{name} changed")
    elif parent.action is Action.CHANGED:
        return Decision(request=request, action=Action.CHANGED, why=f"{name} changed")
    elif parent.action is Action.WAIT:
        return Decision(request=request, action=Action.WAIT, why=f"{name} waits itself: {parent.why}")
    elif parent.action is Action.SUBMIT:
        if view is not None and view.state in ALIVE:
            return Decision(request=request, action=Action.SKIP, why=_under_way(view))
        return Decision(request=request, action=Action.SUBMIT, why=f"after {name}", after_parent=True)
    state = JobState.PLANNED if above is None else above.state
    if state is JobState.COMPLETED:
        return _decide_alone(request, view, options)
    if view is not None and view.state in ALIVE:
        return Decision(request=request, action=Action.SKIP, why=_under_way(view))
    is_queued = above is not None and above.scheduler_id is not None and state is not JobState.UNKNOWN
    is_here = above is not None and above.cluster == cluster
    if state in ALIVE and is_queued and is_here and (view is None or view.state is JobState.PLANNED):
        # A submit was killed, or a limit met, between the parent and this job.
        return Decision(request=request, action=Action.SUBMIT, why=f"after {name}, which is {state}", after_parent=True)
    if state in ALIVE:
        where = f" on {above.cluster}" if above is not None and is_queued and not is_here else ""
        why = f"{name} is still under way{where}; submit again when it is done"
        return Decision(request=request, action=Action.WAIT, why=why)
    left_out = " and was not asked for" if parent is None else ""
    return Decision(request=request, action=Action.SKIP, why=f"blocked: {name} is {state}{left_out}")
