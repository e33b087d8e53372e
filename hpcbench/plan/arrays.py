"""Which jobs go out in one call: arrays of one shape, and behind them arrays of the jobs that take their models.

Along such a chain of arrays, of any length, the same index means the same chain of jobs. Evals of one experiment with
`eval_args.together` are one element, where their model is the same one.

Pure but for the key, which is unique by time and chance, and for the user's name.
"""

from __future__ import annotations

import re
import secrets
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from hpcbench.plan.decide import Decision
from hpcbench.schemas.request import JobRef, JobRequest, Resources
from hpcbench.schemas.submission import Element, ElementJob, Submission, this_user
from hpcbench.storage.clock import now_text

KEY_LIMIT = 64
SHARED_EVALS = "evals"
"""In a key and in messages, where others have the name of a job."""

Bundle = tuple[JobRequest, ...]
"""The jobs of one element, in the order in which they run; mostly one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JobArray:
    """Jobs of one shape that go out as one array, and behind it those that take their models.

    Each of those waits for the element of the same index.
    """

    key: str
    """The submission's key, which is the scheduler's job name."""
    job: str
    requests: Mapping[int, Bundle]
    """By index."""
    children: tuple[JobArray, ...] = ()
    array: bool = True
    """False for a single job, where arrays are not allowed."""

    @property
    def num_jobs(self) -> int:
        """Jobs in it and behind it."""
        return sum(map(len, self.requests.values())) + sum(child.num_jobs for child in self.children)

    @property
    def num_elements(self) -> int:
        """What a scheduler counts as jobs, in it and behind it."""
        return len(self.requests) + sum(child.num_elements for child in self.children)


def new_array(
    job: str, requests: Mapping[int, Bundle], *, children: tuple[JobArray, ...] = (), array: bool
) -> JobArray:
    """Return these jobs as an array under a new key."""
    key = make_key(next(iter(requests.values()))[0].suite, job)
    return JobArray(key=key, job=job, requests=requests, children=children, array=array)


def make_arrays(decisions: Sequence[Decision], max_array: int) -> list[JobArray]:
    """Group jobs of one shape into arrays, others behind their parents; a `max_array` of 1 makes single jobs."""
    children = _by_parent(decisions)
    groups: dict[tuple[str, Resources], list[Bundle]] = {}
    for bundle in make_bundles(_first(decisions)):
        kind = "eval" if bundle[0].cmd == "eval" else bundle[0].job
        groups.setdefault((kind, bundle[0].resources), []).append(bundle)
    return [
        _array_with_children(kind, dict(enumerate(bundles[start : start + max_array])), children, array=max_array > 1)
        for (kind, _), bundles in groups.items()
        for start in range(0, len(bundles), max_array)
    ]


def make_bundles(requests: Sequence[JobRequest]) -> list[Bundle]:
    """Return the requests as elements, each where its first one was: evals that share a job are one."""
    bundles: dict[object, list[JobRequest]] = {}
    for request in requests:
        bundles.setdefault(sharing_key(request) or request.ref, []).append(request)
    return [tuple(bundle) for bundle in bundles.values()]


def sharing_key(request: JobRequest) -> tuple[object, ...] | None:
    """Return what evals that share one job and one loaded model have in common, None for what has its own job."""
    args = request.eval_args
    if request.cmd != "eval" or args is None or not args.together:
        return None
    return request.experiment, request.train_folder, request.resources, args.checkpoint, args.merge_lora


def _first(decisions: Sequence[Decision]) -> list[JobRequest]:
    """Return the jobs that wait for none, in the order in which they start: baselines are short."""
    found = [decision.request for decision in decisions if not decision.after_parent]
    return sorted(found, key=lambda request: request.cmd != "eval")


def _by_parent(decisions: Sequence[Decision]) -> dict[JobRef, list[JobRequest]]:
    children: dict[JobRef, list[JobRequest]] = {}
    for decision in decisions:
        parent = decision.request.parent
        if decision.after_parent and parent is not None:
            children.setdefault(parent, []).append(decision.request)
    return children


def _array_with_children(
    job: str, requests: Mapping[int, Bundle], children: Mapping[JobRef, list[JobRequest]], *, array: bool
) -> JobArray:
    # Only evals share an element, and nothing takes a model from those.
    behind = {index: children[first.ref] for index, (first, *_) in requests.items() if first.ref in children}
    arrays = tuple(_array_with_children(name, found, children, array=array) for name, found in _group_children(behind))
    return new_array(job, requests, children=arrays, array=array)


def _group_children(behind: Mapping[int, Sequence[JobRequest]]) -> list[tuple[str, dict[int, Bundle]]]:
    """Group the children of the jobs at each index by name and shape; of two alike, one goes into another group."""
    groups: dict[tuple[str, Resources, int], dict[int, Bundle]] = {}
    for index, requests in behind.items():
        alike: Counter[tuple[str, Resources]] = Counter()
        for bundle in make_bundles(requests):
            kind = (bundle[0].job if sharing_key(bundle[0]) is None else SHARED_EVALS, bundle[0].resources)
            groups.setdefault((*kind, alike[kind]), {})[index] = bundle
            alike[kind] += 1
    return [(job, found) for (job, _, _), found in groups.items()]


def make_late_arrays(
    decisions: Sequence[Decision], places: Mapping[JobRef, tuple[Submission, int]]
) -> list[tuple[Submission, JobArray]]:
    """Group the jobs whose parent is under way from an earlier submit, at its index there (the newest in `places`)."""
    going = {decision.request.ref for decision in decisions}
    children = _by_parent(decisions)
    parents: dict[str, Submission] = {}
    behind: dict[str, dict[int, list[JobRequest]]] = {}
    for parent, requests in children.items():
        if parent not in going and parent in places:
            submission, index = places[parent]
            parents[submission.key] = submission
            behind.setdefault(submission.key, {})[index] = requests
    return [
        (parents[key], _array_with_children(job, found, children, array=parents[key].array))
        for key, at_index in behind.items()
        for job, found in _group_children(at_index)
    ]


def take_part(whole: JobArray, indices: Sequence[int]) -> JobArray:
    """Return the array of some of its indices, renumbered from 0, children together with their parents."""
    renumbered = {old: new for new, old in enumerate(indices)}

    def take(array: JobArray) -> JobArray:
        requests = {renumbered[i]: bundle for i, bundle in array.requests.items() if i in renumbered}
        children = tuple(take(child) for child in array.children if not renumbered.keys().isdisjoint(child.requests))
        return new_array(array.job, requests, children=children, array=array.array)

    return take(whole)


def describe_array(array: JobArray, cluster: str, after: Submission | None) -> Submission:
    """Return the submission that an array makes."""
    first = next(iter(array.requests.values()))[0]
    return Submission(
        key=array.key,
        suite=first.suite,
        cluster=cluster,
        submitter=this_user(),
        created_at=now_text(),
        after_key=None if after is None else after.key,
        array=array.array,
        resources=first.resources,
        elements={index: _describe_element(bundle) for index, bundle in array.requests.items()},
    )


def _describe_element(bundle: Bundle) -> Element:
    first, *others = (
        ElementJob(experiment=request.experiment, job=request.job, fingerprint=request.fingerprint)
        for request in bundle
    )
    return Element(**first.model_dump(), companions=tuple(others))


def make_key(suite: str, job: str) -> str:
    """Return a unique scheduler job name for one submission."""
    stamp = datetime.now(UTC).strftime("%y%m%d%H%M%S")
    tail = f"-{stamp}-{secrets.token_hex(4)}"
    head = re.sub(r"[^A-Za-z0-9._-]", "_", f"{suite}-{job}")
    return head[: KEY_LIMIT - len(tail)] + tail
